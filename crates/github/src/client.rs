//! octocrab on a connection that neither repeats nor follows anything by itself.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::uri::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, Octocrab, OctocrabBuilder};

/// Requests go below `api`, with this token. Trusts what the machine trusts: an Enterprise Server may have a
/// certificate of its own authority.
pub(crate) fn octocrab(api: &str, token: &str) -> Result<Octocrab, String> {
    let base: Uri = api
        .parse()
        .map_err(|error| format!("`{api}` is no URL: {error}"))?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "the token has characters that no token has".to_owned())?;
    authorization.set_sensitive(true);
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| format!("this machine trusts no certificate: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    let agent = HeaderValue::from_static(concat!("regionwise/", env!("CARGO_PKG_VERSION")));
    let headers = vec![(USER_AGENT, agent), (AUTHORIZATION, authorization)];
    let built = OctocrabBuilder::new_empty()
        .with_service(Client::builder(TokioExecutor::new()).build(connector))
        .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
        .with_layer(&BaseUriLayer::new(base))
        .with_auth(AuthState::None)
        .build();
    match built {
        Ok(octocrab) => Ok(octocrab),
        Err(never) => match never {},
    }
}
