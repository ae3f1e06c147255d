//! What every kind of resource has in common: a name of its own, labels, protection, lists.

use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};

use super::project::Project;
use super::query::{Labels, Query, is_key, is_value};
use super::refusal::{Answer, Answered, Refusal, invalid, not_found, refuse};

/// A resource of some kind.
#[derive(Clone, Debug)]
pub struct Resource<T> {
    /// Unique among all kinds, so that no mix-up goes well.
    pub id: u64,
    pub name: String,
    pub labels: Labels,
    /// Protected against deletion.
    pub protected: bool,
    pub own: T,
}

impl<T> Deref for Resource<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.own
    }
}

impl<T> DerefMut for Resource<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.own
    }
}

pub(super) trait Kind: Sized {
    /// Its key in answers, and the type in an action's resources.
    const ONE: &'static str;
    /// Its path and its key in lists.
    const MANY: &'static str;
    /// Whether a name is used once.
    const UNIQUE: bool = true;
    /// Whether nothing more can be done with it while an action about it runs.
    const LOCKS: bool = true;

    fn all(project: &Project) -> &Vec<Resource<Self>>;
    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>>;
    fn shown(project: &Project, it: &Resource<Self>) -> Value;

    /// POST, with a name and labels that were checked.
    fn create(project: &mut Project, body: &Value) -> Answered;

    /// DELETE of one that is neither protected nor locked.
    fn delete(project: &mut Project, id: u64) -> Answered;

    /// POST of an action other than `change_protection` about one that is not locked.
    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered;

    /// What `change_protection` checks and changes beside the protection against deletion.
    fn protected(_project: &mut Project, _id: u64, _body: &Value) -> Result<(), Refusal> {
        Ok(())
    }

    /// What PUT changes beside name and labels.
    fn changed(&mut self, _body: &Value) {}

    /// # Errors
    /// The reason why nothing of this kind can have that name.
    fn name_fits(name: &str) -> Result<(), &'static str> {
        at_most(name, 255)
    }
}

pub(super) fn at_most(name: &str, letters: usize) -> Result<(), &'static str> {
    match name.chars().count() {
        0 => Err("must not be empty"),
        count if count > letters => Err("is too long"),
        _ => Ok(()),
    }
}

impl Project {
    pub(super) fn find<T: Kind>(&self, id: u64) -> Result<&Resource<T>, Refusal> {
        let found = T::all(self).iter().find(|known| known.id == id);
        found.ok_or_else(|| not_found(T::ONE, id))
    }

    pub(super) fn find_mut<T: Kind>(&mut self, id: u64) -> Result<&mut Resource<T>, Refusal> {
        let found = T::all_mut(self).iter_mut().find(|known| known.id == id);
        found.ok_or_else(|| not_found(T::ONE, id))
    }

    /// The id in a path, of a resource that is there.
    pub(super) fn id_of<T: Kind>(&self, text: &str) -> Result<u64, Refusal> {
        let id = text.parse().map_err(|_| not_found(T::ONE, text))?;
        self.find::<T>(id).map(|found| found.id)
    }

    pub(super) fn shown<T: Kind>(&self, id: u64) -> Result<Value, Refusal> {
        Ok(T::shown(self, self.find(id)?))
    }

    pub(super) fn show<T: Kind>(&self, id: u64) -> Answered {
        Ok(Answer::ok(json!({ T::ONE: self.shown::<T>(id)? })))
    }

    pub(super) fn list<T: Kind>(&self, query: &Query) -> Answered {
        let selector = query.selector()?;
        let found = T::all(self).iter().filter(|known| {
            query.get("name").is_none_or(|name| name == known.name) && selector.fits(&known.labels)
        });
        let shown = found.map(|known| T::shown(self, known)).filter(|shown| {
            ["status", "type", "ip", "fingerprint"]
                .iter()
                .all(|field| query.wants(field, shown[field].as_str().unwrap_or_default()))
        });
        Ok(Answer::ok(query.page(T::MANY, shown.collect())?))
    }

    /// # Errors
    /// When a body's name or labels are none, or another resource of the kind has the name.
    pub(super) fn check_named<T: Kind>(
        &self,
        body: &Value,
        own: Option<u64>,
    ) -> Result<(), Refusal> {
        if let Some(name) = body["name"].as_str() {
            T::name_fits(name).map_err(|why| invalid("name", why))?;
            let mut others = T::all(self).iter().filter(|known| Some(known.id) != own);
            if T::UNIQUE && others.any(|known| known.name == name) {
                return Err(refuse(
                    409,
                    "uniqueness_error",
                    format!("{} name is already used", T::ONE.replace('_', " ")),
                ));
            }
        }
        for (key, value) in labels(body) {
            if !is_key(&key) || !is_value(&value) {
                return Err(invalid("labels", &format!("`{key}={value}` is no label")));
            }
            if key.starts_with("hetzner.cloud/") {
                return Err(invalid("labels", "the prefix hetzner.cloud/ is reserved"));
            }
        }
        Ok(())
    }

    /// Adds it under the name and labels of the body, which were checked.
    pub(super) fn add<T: Kind>(&mut self, body: &Value, own: T) -> u64 {
        let id = self.number();
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        T::all_mut(self).push(Resource {
            id,
            name,
            labels: labels(body),
            protected: false,
            own,
        });
        id
    }

    /// PUT: a new name, and labels in place of all there were.
    pub(super) fn change<T: Kind>(&mut self, id: u64, body: &Value) -> Answered {
        self.check_named::<T>(body, Some(id))?;
        let found = self.find_mut::<T>(id)?;
        if let Some(name) = body["name"].as_str() {
            name.clone_into(&mut found.name);
        }
        if body["labels"].is_object() {
            found.labels = labels(body);
        }
        found.own.changed(body);
        self.show::<T>(id)
    }

    pub(super) fn protect<T: Kind>(&mut self, id: u64, body: &Value) -> Answered {
        T::protected(self, id, body)?;
        if let Some(protected) = body["delete"].as_bool() {
            self.find_mut::<T>(id)?.protected = protected;
        }
        self.acted("change_protection", T::ONE, id, |_| Ok(()))
    }

    /// # Errors
    /// When it is protected.
    pub(super) fn unprotected<T: Kind>(&self, id: u64) -> Result<(), Refusal> {
        if self.find::<T>(id)?.protected {
            return Err(refuse(
                423,
                "protected",
                format!("{} deletion is protected", T::ONE.replace('_', " ")),
            ));
        }
        Ok(())
    }

    pub(super) fn remove<T: Kind>(&mut self, id: u64) {
        T::all_mut(self).retain(|known| known.id != id);
    }
}

fn labels(body: &Value) -> Labels {
    let given = body["labels"].as_object().into_iter().flatten();
    given
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// A name or a number of a body, as text.
pub(super) fn named(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Numbers of a list in a body.
pub(super) fn numbers(value: &Value) -> Vec<u64> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect()
}
