//! Which requests the API's own description allows. `description.json` is made of it by `describe.py`.

use std::collections::BTreeMap;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::query::Query;
use super::refusal::{Refusal, invalid_fields, refuse};

const DESCRIPTION: &str = include_str!("description.json");

pub(super) struct Description {
    /// By method and path, such as `POST /servers/{id}/actions/rebuild`.
    routes: BTreeMap<String, Route>,
}

struct Route {
    query: Vec<String>,
    body: Option<Value>,
}

impl Description {
    pub(super) fn new() -> Self {
        let whole: Value = serde_json::from_str(DESCRIPTION).unwrap_or_default();
        let routes = whole["routes"].as_object().into_iter().flatten();
        let routes = routes.map(|(name, route)| {
            let query = route["query"].as_array().into_iter().flatten();
            let route = Route {
                query: query.filter_map(Value::as_str).map(str::to_owned).collect(),
                body: route.get("body").cloned(),
            };
            (name.clone(), route)
        });
        Self {
            routes: routes.collect(),
        }
    }

    fn route(&self, method: &str, parts: &[&str]) -> Option<&Route> {
        let fits = |name: &str| {
            let (known, path) = name.split_once(' ').unwrap_or_default();
            let path: Vec<&str> = path.split('/').skip(1).collect();
            known == method
                && path.len() == parts.len()
                && path
                    .iter()
                    .zip(parts)
                    .all(|(known, part)| known.starts_with('{') || known == part)
        };
        // `/servers/actions` is also of the form `/servers/{id}`.
        let mut found: Vec<_> = self.routes.iter().filter(|(name, _)| fits(name)).collect();
        found.sort_by_key(|(name, _)| name.matches('{').count());
        found.first().map(|(_, route)| *route)
    }

    /// Whether there is this path at all, for any method.
    pub(super) fn knows(&self, parts: &[&str]) -> bool {
        ["GET", "POST", "PUT", "DELETE"]
            .iter()
            .any(|method| self.route(method, parts).is_some())
    }

    /// The parameters and the keys of the body that nobody described: the original takes no notice of them (its own
    /// `hcloud` sends some), so they are no reason to refuse, but in our client they would be a mistake.
    ///
    /// # Errors
    /// What Hetzner answers to a request that its description does not allow.
    pub(super) fn check(
        &self,
        method: &str,
        parts: &[&str],
        query: &Query,
        body: Option<&Value>,
    ) -> Result<Vec<String>, Refusal> {
        let Some(route) = self.route(method, parts) else {
            return Err(refuse(405, "method_not_allowed", "method not allowed"));
        };
        let mut unknown: Vec<String> = query.names().map(str::to_owned).collect();
        unknown.retain(|name| !route.query.contains(name));
        match (&route.body, body) {
            (Some(_), None) => return Err(refuse(400, "json_error", "invalid JSON: no body")),
            (Some(schema), Some(body)) => unknown.extend(fits(schema, body)?),
            (None, _) => {}
        }
        Ok(unknown)
    }
}

fn fits(schema: &Value, body: &Value) -> Result<Vec<String>, Refusal> {
    let validator = validator(schema)?;
    let (mut fields, mut unknown) = (Vec::new(), Vec::new());
    for error in validator.iter_errors(body) {
        let place = error.instance_path().as_str().replace('/', ".");
        let place = place.trim_start_matches('.').to_owned();
        let within = |key: &str| {
            let dot = if place.is_empty() { "" } else { "." };
            format!("{place}{dot}{key}")
        };
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                fields.push((within(key), "Missing data for required field.".to_owned()));
            }
            ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                unknown.extend(unexpected.iter().map(|key| within(key)));
            }
            _ => fields.push((place, error.masked().to_string())),
        }
    }
    if fields.is_empty() {
        return Ok(unknown);
    }
    Err(invalid_fields(&fields))
}

fn validator(schema: &Value) -> Result<Validator, Refusal> {
    jsonschema::draft202012::new(schema)
        .map_err(|error| refuse(500, "server_error", format!("description.json: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{Description, validator};

    #[test]
    fn every_body_of_the_description_is_a_schema() {
        let description = Description::new();
        assert_eq!(description.routes.len(), 189);
        let bodies = description
            .routes
            .values()
            .filter_map(|route| route.body.as_ref());
        let mut count = 0;
        for body in bodies {
            validator(body).unwrap();
            count += 1;
        }
        assert!(count > 70, "{count}");
    }
}
