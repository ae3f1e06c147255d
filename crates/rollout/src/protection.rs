//! Whether the environments of GitHub protect what regions.toml says they must.
//!
//! GitHub makes an environment that a job names and nobody made, without any rule: the gate that everybody counts on is
//! then silently none. So a missing environment is refused like an unprotected one.

use crate::verdict::Verdict;

/// An environment as GitHub tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    pub name: String,
    pub rules: Vec<Rule>,
}

/// One protection rule of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// So many people or teams; one of them must approve.
    Reviewers(usize),
    /// Minutes that a deployment waits.
    WaitTimer(u64),
    /// Only some branches or tags may deploy.
    Branches,
    /// An app decides.
    App(String),
    /// A kind that this version does not know, and so cannot judge.
    Other(String),
}

impl Rule {
    /// Whether it can keep a deployment from starting. `None`: nobody here knows.
    fn protects(&self) -> Option<bool> {
        match self {
            Self::Reviewers(count) => Some(*count > 0),
            Self::WaitTimer(minutes) => Some(*minutes > 0),
            Self::Branches | Self::App(_) => Some(true),
            Self::Other(_) => None,
        }
    }

    fn spoken(&self) -> String {
        match self {
            Self::Reviewers(count) => format!("{count} reviewers"),
            Self::WaitTimer(minutes) => format!("{minutes} min wait"),
            Self::Branches => "branches or tags".to_owned(),
            Self::App(name) => format!("app `{name}`"),
            Self::Other(kind) => format!("a rule of kind `{kind}`"),
        }
    }
}

/// What an environment that must be protected is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    Protected,
    /// It is there, and nothing holds a deployment.
    Unprotected,
    Missing,
    /// All that it has are rules of kinds that this version does not know.
    Unclear,
}

impl Protection {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Unprotected => "unprotected",
            Self::Missing => "missing",
            Self::Unclear => "unclear",
        }
    }
}

/// GitHub compares the names of environments without their case.
pub fn named<'a>(environments: &'a [Environment], name: &str) -> Option<&'a Environment> {
    environments
        .iter()
        .find(|environment| environment.name.eq_ignore_ascii_case(name))
}

pub fn protection(environment: Option<&Environment>) -> Protection {
    let Some(environment) = environment else {
        return Protection::Missing;
    };
    let rules = || environment.rules.iter().map(Rule::protects);
    if rules().any(|protects| protects == Some(true)) {
        Protection::Protected
    } else if rules().any(|protects| protects.is_none()) {
        Protection::Unclear
    } else {
        Protection::Unprotected
    }
}

/// The rules as a table shows them.
pub fn spoken(environment: Option<&Environment>) -> String {
    let rules: Vec<String> = environment
        .iter()
        .flat_map(|environment| environment.rules.iter().map(Rule::spoken))
        .collect();
    if rules.is_empty() {
        "-".to_owned()
    } else {
        rules.join(", ")
    }
}

/// What must be protected and is not is refused before anything that could not be judged.
pub fn verdict<'a>(found: impl IntoIterator<Item = &'a Protection> + Clone) -> Verdict {
    let any = |wanted: &[Protection]| {
        found
            .clone()
            .into_iter()
            .any(|protection| wanted.contains(protection))
    };
    if any(&[Protection::Unprotected, Protection::Missing]) {
        Verdict::Refused
    } else if any(&[Protection::Unclear]) {
        Verdict::Pause
    } else {
        Verdict::Proceed
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, Protection, Rule, named, protection, spoken, verdict};
    use crate::verdict::Verdict;

    fn environment(rules: &[Rule]) -> Environment {
        Environment {
            name: "production".to_owned(),
            rules: rules.to_vec(),
        }
    }

    #[test]
    fn a_rule_protects_only_when_it_can_hold_a_deployment() {
        let other = Rule::Other("moon_phase".to_owned());
        for (rules, wanted) in [
            (vec![], Protection::Unprotected),
            (vec![Rule::Reviewers(0)], Protection::Unprotected),
            (vec![Rule::WaitTimer(0)], Protection::Unprotected),
            (vec![Rule::Reviewers(1)], Protection::Protected),
            (vec![Rule::WaitTimer(5)], Protection::Protected),
            (vec![Rule::Branches], Protection::Protected),
            (vec![Rule::App("gate".to_owned())], Protection::Protected),
            (vec![other.clone()], Protection::Unclear),
            (vec![other.clone(), Rule::Reviewers(0)], Protection::Unclear),
            (vec![other, Rule::Reviewers(2)], Protection::Protected),
        ] {
            assert_eq!(protection(Some(&environment(&rules))), wanted, "{rules:?}");
        }
        assert_eq!(protection(None), Protection::Missing);
    }

    #[test]
    fn one_environment_without_protection_refuses_and_one_unclear_holds() {
        use Protection::{Missing, Protected, Unclear, Unprotected};
        assert_eq!(verdict(&[]), Verdict::Proceed);
        assert_eq!(verdict(&[Protected]), Verdict::Proceed);
        assert_eq!(verdict(&[Protected, Unclear]), Verdict::Pause);
        assert_eq!(verdict(&[Unclear, Missing]), Verdict::Refused);
        assert_eq!(verdict(&[Protected, Unprotected]), Verdict::Refused);
    }

    #[test]
    fn a_name_is_found_whatever_its_case() {
        let there = [environment(&[Rule::Reviewers(2), Rule::WaitTimer(30)])];
        assert!(named(&there, "Production").is_some());
        assert!(named(&there, "production-eu").is_none());
        assert_eq!(spoken(there.first()), "2 reviewers, 30 min wait");
        assert_eq!(spoken(None), "-");
    }
}
