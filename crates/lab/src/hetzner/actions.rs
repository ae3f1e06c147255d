//! Actions: what a request starts, and what takes its time.

use serde_json::{Value, json};

use super::CREATED;
use super::project::Project;
use super::query::Query;
use super::refusal::{Answer, Answered, Refusal, not_found, refuse};

/// What an action does when it ends well.
pub(super) type Effect = Box<dyn FnOnce(&mut Project) -> Result<(), Refusal> + Send>;

/// How the test wants the next action to end.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    Fails(&'static str),
    NeverEnds,
}

/// Something that runs, or ran.
pub(super) struct Action {
    pub(super) id: u64,
    pub(super) command: String,
    /// What it is about comes first.
    resources: Vec<(&'static str, u64)>,
    /// How many more times it shows itself as running.
    left: usize,
    /// Begins when this one has ended.
    after: Option<u64>,
    fate: Option<Fate>,
    effect: Option<Effect>,
    /// Code and message of its error once it has ended so.
    ended: Option<Result<(), (String, String)>>,
}

impl Action {
    fn is_about(&self, kind: &str, id: u64) -> bool {
        self.resources
            .first()
            .is_some_and(|(its, of)| *its == kind && *of == id)
    }

    pub(super) fn shown(&self) -> Value {
        let status = match &self.ended {
            None => "running",
            Some(Ok(())) => "success",
            Some(Err(_)) => "error",
        };
        let error = match &self.ended {
            Some(Err((code, message))) => json!({ "code": code, "message": message }),
            Some(Ok(())) | None => Value::Null,
        };
        let resources = self.resources.iter();
        let resources = resources.map(|(kind, id)| json!({ "type": kind, "id": id }));
        json!({
            "id": self.id,
            "command": self.command,
            "status": status,
            "progress": if self.ended.is_some() { 100 } else { 0 },
            "started": CREATED,
            "finished": self.ended.as_ref().map(|_| CREATED),
            "resources": resources.collect::<Vec<_>>(),
            "error": error,
        })
    }
}

impl Project {
    /// Starts an action after another one, or at once. Without latency it has ended already.
    pub(super) fn start(
        &mut self,
        command: &str,
        resources: &[(&'static str, u64)],
        after: Option<u64>,
        effect: impl FnOnce(&mut Project) -> Result<(), Refusal> + Send + 'static,
    ) -> u64 {
        let id = self.number();
        let fate = self.fate.take();
        self.actions.push(Action {
            id,
            command: command.to_owned(),
            resources: resources.to_vec(),
            left: self.latency,
            after,
            fate,
            effect: Some(Box::new(effect)),
            ended: None,
        });
        self.end_what_is_due();
        id
    }

    /// 201 with the one action about one resource.
    pub(super) fn acted(
        &mut self,
        command: &str,
        kind: &'static str,
        id: u64,
        effect: impl FnOnce(&mut Project) -> Result<(), Refusal> + Send + 'static,
    ) -> Answered {
        let action = self.start(command, &[(kind, id)], None, effect);
        Ok(Answer::created(
            json!({ "action": self.shown_action(action) }),
        ))
    }

    pub(super) fn shown_action(&self, id: u64) -> Value {
        let found = self.actions.iter().find(|action| action.id == id);
        found.map_or(Value::Null, Action::shown)
    }

    /// # Errors
    /// 423 while an action about the resource runs.
    pub(super) fn unlocked(&self, kind: &str, id: u64) -> Result<(), Refusal> {
        if self.is_locked(kind, id) {
            return Err(refuse(423, "locked", format!("{kind} is locked")));
        }
        Ok(())
    }

    pub(super) fn is_locked(&self, kind: &str, id: u64) -> bool {
        let mut running = self.actions.iter().filter(|action| action.ended.is_none());
        running.any(|action| action.is_about(kind, id))
    }

    /// Time passes for the running actions that an answer showed, themselves or what they are about.
    pub(super) fn age(&mut self, answer: &Value) {
        let has = |one: &Value, id: u64| one["id"].as_u64() == Some(id);
        let shows = |kind: &str, id: u64| {
            let many = answer[format!("{kind}s").as_str()].as_array();
            has(&answer[kind], id) || many.into_iter().flatten().any(|one| has(one, id))
        };
        let ended: Vec<u64> = self.ended();
        for action in self
            .actions
            .iter_mut()
            .filter(|action| action.ended.is_none())
        {
            let begun = action.after.is_none_or(|before| ended.contains(&before));
            let about = action.resources.first().copied().unwrap_or_default();
            if begun && (shows("action", action.id) || shows(about.0, about.1)) {
                action.left = action.left.saturating_sub(1);
            }
        }
        self.end_what_is_due();
    }

    fn ended(&self) -> Vec<u64> {
        let ended = self.actions.iter().filter(|action| action.ended.is_some());
        ended.map(|action| action.id).collect()
    }

    fn end_what_is_due(&mut self) {
        loop {
            let ended = self.ended();
            let due = self.actions.iter_mut().find(|action| {
                action.ended.is_none()
                    && action.left == 0
                    && !matches!(action.fate, Some(Fate::NeverEnds))
                    && action.after.is_none_or(|before| ended.contains(&before))
            });
            let Some(action) = due else {
                return;
            };
            let (id, before) = (action.id, action.after);
            let (fate, effect) = (action.fate.take(), action.effect.take());
            let end = if let Some(Fate::Fails(code)) = fate {
                Err((code.to_owned(), format!("{code} (asked for by the test)")))
            } else if before.is_some_and(|before| self.failed(before)) {
                let why = "the action before it failed";
                Err(("action_failed".to_owned(), why.to_owned()))
            } else {
                let done = effect.map_or(Ok(()), |effect| effect(self));
                done.map_err(|refusal| (refusal.code, refusal.message))
            };
            if let Some(action) = self.actions.iter_mut().find(|action| action.id == id) {
                action.ended = Some(end);
            }
        }
    }

    fn failed(&self, id: u64) -> bool {
        let found = self.actions.iter().find(|action| action.id == id);
        found.is_some_and(|action| matches!(action.ended, Some(Err(_))))
    }

    pub(super) fn show_action(&self, id: &str) -> Answered {
        match self
            .actions
            .iter()
            .find(|action| action.id.to_string() == id)
        {
            Some(action) => Ok(Answer::ok(json!({ "action": action.shown() }))),
            None => Err(not_found("action", id)),
        }
    }

    /// Those of one kind of resource, or of one resource.
    pub(super) fn list_actions(
        &self,
        query: &Query,
        kind: Option<&str>,
        of: Option<u64>,
    ) -> Answered {
        let found = self.actions.iter().filter(|action| {
            action.resources.iter().any(|(its, id)| {
                kind.is_none_or(|kind| kind == *its) && of.is_none_or(|of| of == *id)
            }) && query.wants("id", &action.id.to_string())
        });
        let shown = found.map(Action::shown);
        let shown = shown
            .filter(|shown| query.wants("status", shown["status"].as_str().unwrap_or_default()));
        Ok(Answer::ok(query.page("actions", shown.collect())?))
    }
}
