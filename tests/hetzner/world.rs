//! A Hetzner, and a client that believes nothing.

use std::time::Duration;

use regionwise_lab::hetzner::Hetzner;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(crate) const TOKEN: &str = "hunter2hunter2hunter2hunter2";
/// The key of the test vectors in RFC 8032, section 7.1, test 1.
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";

pub(crate) struct World {
    pub(crate) hetzner: Hetzner,
    client: Client,
    // After what runs on it.
    pub(crate) runtime: Runtime,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let hetzner = runtime.block_on(Hetzner::start(TOKEN)).unwrap();
        let timeout = Duration::from_secs(20);
        Self {
            hetzner,
            client: Client::builder().timeout(timeout).build().unwrap(),
            runtime,
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client
            .request(method, format!("{}{path}", self.hetzner.url()))
            .bearer_auth(TOKEN)
    }

    /// `Err` when no whole answer comes.
    pub(crate) fn send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        self.runtime.block_on(async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await?;
            let body = serde_json::from_str(&text).unwrap_or(Value::Null);
            Ok(Answer {
                status,
                headers,
                text,
                body,
            })
        })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).json(body)).unwrap()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request("PUT", path).json(body)).unwrap()
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send(self.request("DELETE", path)).unwrap()
    }

    /// Creates something and returns its id.
    #[track_caller]
    pub(crate) fn made(&self, path: &str, body: &Value) -> u64 {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 201, "{path} {body}: {}", answer.text);
        let kind = path.trim_matches('/').trim_end_matches('s');
        answer.body[kind]["id"].as_u64().unwrap()
    }

    #[track_caller]
    pub(crate) fn server(&self, name: &str) -> u64 {
        self.made("/servers", &server(name))
    }

    /// Does something with a resource that works.
    #[track_caller]
    pub(crate) fn act(&self, path: &str, body: &Value) -> Answer {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 201, "{path} {body}: {}", answer.text);
        answer
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(&self, status: u16, code: &str) -> &Self {
        let found = self.body["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((self.status, found), (status, code), "{}", self.text);
        self
    }

    /// The names in a list.
    pub(crate) fn names(&self, list: &str) -> Vec<&str> {
        let all = self.body[list].as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

pub(crate) fn server(name: &str) -> Value {
    json!({ "name": name, "server_type": "cx23", "image": "debian-12", "location": "fsn1" })
}

/// With other keys on top.
pub(crate) fn with(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}
