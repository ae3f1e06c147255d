//! The lab's GitHub refuses what the original refuses; what GitHub's own description lets pass above all.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail and tell as tests do"
)]

use regionwise_lab::github::Github;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

const TOKEN: &str = "token";

struct World {
    github: Github,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let github = Github::start(TOKEN).await.unwrap();
        let client = Client::builder().user_agent("test").build().unwrap();
        Self { github, client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/repos/our-org/regionwise{path}", self.github.url());
        self.client.request(method, url).bearer_auth(TOKEN)
    }

    async fn post(&self, path: &str, body: Value) -> u16 {
        let request = self.request(Method::POST, path).json(&body);
        request.send().await.unwrap().status().as_u16()
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }
}

#[tokio::test]
async fn a_deployment_needs_its_two_refusals_of_help() {
    let world = World::new().await;
    let deployment = |auto_merge: bool, contexts: Value| json!({ "ref": "main", "auto_merge": auto_merge, "required_contexts": contexts });
    for (body, status) in [
        (json!({ "auto_merge": false }), 422),
        // Both have a default that deploys nothing.
        (json!({ "ref": "main", "required_contexts": [] }), 202),
        (json!({ "ref": "main", "auto_merge": false }), 409),
        (deployment(true, json!([])), 202),
        (deployment(false, json!(["ci"])), 409),
        (deployment(false, json!([])), 201),
    ] {
        assert_eq!(
            world.post("/deployments", body.clone()).await,
            status,
            "{body}"
        );
    }
    let made = world
        .github
        .repository(|repository| repository.deployments.len());
    assert_eq!(made, 1);
    // An environment that nobody made is made, without any rule.
    let rules = world
        .github
        .repository(|repository| repository.environments[0].rules.len());
    assert_eq!(rules, 0);
}

#[tokio::test]
async fn a_status_has_a_known_state_and_a_short_description() {
    let world = World::new().await;
    let body = json!({ "ref": "main", "auto_merge": false, "required_contexts": [] });
    assert_eq!(world.post("/deployments", body).await, 201);
    let id = world
        .github
        .repository(|repository| repository.deployments[0].id);
    let path = format!("/deployments/{id}/statuses");
    for (body, status) in [
        (json!({}), 422),
        (json!({ "state": "rolling_back" }), 422),
        (
            json!({ "state": "success", "description": "ä".repeat(141) }),
            422,
        ),
        (
            json!({ "state": "success", "description": "ä".repeat(140) }),
            201,
        ),
    ] {
        assert_eq!(world.post(&path, body.clone()).await, status, "{body}");
    }
    assert_eq!(world.post("/deployments/99/statuses", json!({})).await, 404);
}

#[tokio::test]
async fn an_issue_needs_a_title_and_a_comment_a_body() {
    let world = World::new().await;
    assert_eq!(world.post("/issues", json!({ "body": "x" })).await, 422);
    assert_eq!(world.post("/issues", json!({ "title": "x" })).await, 201);
    assert_eq!(world.post("/issues/1/comments", json!({})).await, 422);
    assert_eq!(
        world
            .post("/issues/2/comments", json!({ "body": "x" }))
            .await,
        404
    );
}

#[tokio::test]
async fn a_dispatch_needs_a_ref_and_takes_25_inputs() {
    let world = World::new().await;
    let path = "/actions/workflows/deploy.yml/dispatches";
    let inputs = |count: usize| -> Value {
        (0..count)
            .map(|number| (format!("i{number}"), json!("x")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    assert_eq!(world.post(path, json!({ "inputs": {} })).await, 422);
    let with = |count| json!({ "ref": "main", "inputs": inputs(count) });
    assert_eq!(world.post(path, with(26)).await, 422);
    assert_eq!(world.post(path, with(25)).await, 204);
    let dispatches = world
        .github
        .repository(|repository| repository.dispatches.clone());
    assert_eq!(dispatches.len(), 1);
    assert_eq!(dispatches[0]["workflow"], "deploy.yml");
}

#[tokio::test]
async fn a_list_comes_in_pages_with_links() {
    let world = World::new().await;
    world.github.repository(|repository| {
        for number in 0..65 {
            repository.open(&format!("issue {number}"), "", &[]);
        }
    });
    let first = world.get("/issues?state=open").await;
    let link = first.headers()["link"].to_str().unwrap().to_owned();
    assert!(link.contains("page=2&state=open>; rel=\"next\""), "{link}");
    assert_eq!(first.json::<Vec<Value>>().await.unwrap().len(), 30);
    let last = world.get("/issues?page=3").await;
    assert!(last.headers().get("link").is_none());
    assert_eq!(last.json::<Vec<Value>>().await.unwrap().len(), 5);
}

#[tokio::test]
async fn nobody_is_served_without_the_token_or_outside_the_repository() {
    let world = World::new().await;
    let url = |name: &str| format!("{}/repos/our-org/{name}/issues", world.github.url());
    let plain = world.client.get(url("regionwise")).send().await.unwrap();
    assert_eq!(plain.status(), 401);
    let other = world.client.get(url("other")).bearer_auth(TOKEN).send();
    assert_eq!(other.await.unwrap().status(), 404);
    let agentless = Client::new().get(url("regionwise")).bearer_auth(TOKEN);
    assert_eq!(agentless.send().await.unwrap().status(), 403);
}
