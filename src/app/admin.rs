//! The admin plane: which path shows what, who may ask, and what may be changed.
//!
//! Reading is for everyone who reaches the listener, or who knows the token if there is one; probes
//! are never asked for it, since what probes seldom has secrets. Changing must be allowed by
//! configuration. Absent on purpose: sockets (`net/admin_serve`) and what is behind the figures.

use std::sync::Arc;

use futures::future::BoxFuture;
use http_types::Method;
use http_types::Request;
use http_types::Response;
use http_types::StatusCode;
use serde_json::Value;
use serde_json::json;

use crate::app::connections;
use crate::app::connections::Filter;
use crate::app::page;
use crate::app::readiness::Readiness;
use crate::app::readiness::Ready;
use crate::app::reload::Applied;
use crate::app::token::Opens;
use crate::app::token::Token;
use crate::base::ConnId;
use crate::base::reason::Side;
use crate::observe::LiveTable;
use crate::observe::Metrics;

/// Something that is shown as JSON when it is asked for.
pub type Show = Box<dyn Fn() -> Value + Send + Sync>;

/// Something that an operator can order; the error is for them.
pub type Act = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Another configuration: what of it needs a restart, or every complaint.
pub type Reload = Box<dyn Fn() -> BoxFuture<'static, Result<Applied, String>> + Send + Sync>;

/// Has the connection of this number closed; which side it is on, if there is one.
pub type Dismiss = Box<dyn Fn(ConnId) -> Option<Side> + Send + Sync>;

/// What the admin plane knows and may do.
pub struct AdminPlane {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Sets the gauges that are set only when somebody looks.
    pub measure: Box<dyn Fn() + Send + Sync>,
    /// What `/connections` shows.
    pub live: Arc<LiveTable>,
    /// The clock of the live table: microseconds since the process began.
    pub now_micros: fn() -> u64,
    /// What `/upstreams` shows.
    pub upstreams: Show,
    /// What `/config` shows.
    pub config: Show,
    /// What `/drain` shows.
    pub drain: Show,
    /// What `/readyz` says.
    pub readiness: Arc<Readiness>,
    /// Asked for on everything but the probes, if there is one.
    pub token: Option<Token>,
    /// What may be changed.
    pub changes: Changes,
}

/// Whether the admin plane may change anything.
pub enum Changes {
    /// `admin.allow_changes = false`.
    Refused,
    /// It may do these.
    Allowed {
        /// Begins to drain.
        drain: Act,
        /// Reads the configuration again.
        reload: Reload,
        /// Closes a connection.
        dismiss: Dismiss,
    },
}

impl AdminPlane {
    /// The answer to a request. An answer to HEAD carries the body too: the codec announces its
    /// length and leaves it out (RFC 9110 §9.3.2).
    pub async fn answer(&self, request: &Request) -> Response {
        let resource = Resource::at(request.url().path());
        // Asked for first: without it nobody learns which paths there are.
        if !resource.is_some_and(Resource::is_probe) && self.admits(request) == Opens::Denied {
            let mut response = refuse(StatusCode::Unauthorized, "a bearer token is asked for");
            response.insert_header("www-authenticate", "Bearer realm=\"holdfast\"");
            return response;
        }
        let Some(resource) = resource else {
            return refuse(StatusCode::NotFound, "there is nothing at this path");
        };
        if !resource.methods().contains(&request.method()) {
            let mut response = refuse(StatusCode::MethodNotAllowed, "this path has other methods");
            let allowed: Vec<_> = resource.methods().iter().map(AsRef::as_ref).collect();
            response.insert_header("allow", allowed.join(", "));
            return response;
        }
        self.serve(resource, request).await
    }

    async fn serve(&self, resource: Resource, request: &Request) -> Response {
        match resource {
            Resource::Page => html(),
            Resource::Metrics => {
                (self.measure)();
                text(
                    StatusCode::Ok,
                    "text/plain; version=0.0.4; charset=utf-8",
                    self.metrics.expose(),
                )
            }
            Resource::Livez => text(StatusCode::Ok, PLAIN, "alive\n".to_owned()),
            Resource::Readyz => self.readyz(),
            Resource::Connections => match Filter::parse(request.url()) {
                Ok(filter) => show(&connections::list(&self.live, filter, (self.now_micros)())),
                Err(clause) => refuse(StatusCode::BadRequest, &clause),
            },
            Resource::Upstreams => show(&(self.upstreams)()),
            Resource::Config => show(&(self.config)()),
            Resource::Drain if request.method() != Method::Post => show(&(self.drain)()),
            Resource::Drain | Resource::Reload | Resource::Close => {
                self.change(resource, request).await
            }
        }
    }

    fn readyz(&self) -> Response {
        let (status, why) = match self.readiness.state() {
            Ready::Serving => (StatusCode::Ok, "ready\n"),
            Ready::Starting => (
                StatusCode::ServiceUnavailable,
                "starting: not all listeners are up\n",
            ),
            Ready::Draining => (
                StatusCode::ServiceUnavailable,
                "draining: no new work is wanted\n",
            ),
        };
        text(status, PLAIN, why.to_owned())
    }

    async fn change(&self, resource: Resource, request: &Request) -> Response {
        let Changes::Allowed {
            drain,
            reload,
            dismiss,
        } = &self.changes
        else {
            return refuse(StatusCode::Forbidden, "admin.allow_changes is false");
        };
        if is_cross_site(request) {
            return refuse(
                StatusCode::Forbidden,
                "another site's page may not change anything",
            );
        }
        let done = match resource {
            Resource::Reload => reload().await.map(|applied| {
                let answer = json!({ "applied": true, "need_a_restart": applied.need_a_restart });
                show(&answer)
            }),
            Resource::Close => return close(dismiss, request),
            _ => drain().map(|()| {
                let accepted = json!({ "accepted": true });
                text(StatusCode::Accepted, JSON, format!("{accepted}\n"))
            }),
        };
        done.unwrap_or_else(|clause| refuse(StatusCode::Conflict, &clause))
    }

    fn admits(&self, request: &Request) -> Opens {
        let Some(token) = &self.token else {
            return Opens::Granted;
        };
        request
            .header("authorization")
            .map_or(Opens::Denied, |field| token.opens(field.as_str()))
    }
}

/// The paths there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Page,
    Metrics,
    Livez,
    Readyz,
    Connections,
    Upstreams,
    Config,
    Drain,
    Reload,
    Close,
}

impl Resource {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Page),
            "/metrics" => Some(Self::Metrics),
            "/livez" => Some(Self::Livez),
            "/readyz" => Some(Self::Readyz),
            "/connections" => Some(Self::Connections),
            "/connections/close" => Some(Self::Close),
            "/upstreams" => Some(Self::Upstreams),
            "/config" => Some(Self::Config),
            "/drain" => Some(Self::Drain),
            "/reload" => Some(Self::Reload),
            _ => None,
        }
    }

    fn methods(self) -> &'static [Method] {
        match self {
            Self::Drain => &[Method::Get, Method::Head, Method::Post],
            Self::Reload | Self::Close => &[Method::Post],
            _ => &[Method::Get, Method::Head],
        }
    }

    fn is_probe(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz)
    }
}

/// Has a connection closed: a client's now, an origin's now or when its request is over.
fn close(dismiss: &Dismiss, request: &Request) -> Response {
    let id = match connections::id(request.url()) {
        Ok(id) => id,
        Err(clause) => return refuse(StatusCode::BadRequest, &clause),
    };
    match dismiss(id) {
        Some(side) => {
            let accepted = json!({ "accepted": true, "id": id.0, "side": side.label() });
            text(StatusCode::Accepted, JSON, format!("{accepted}\n"))
        }
        None => refuse(StatusCode::NotFound, "no open connection has this id"),
    }
}

/// Whether a browser sends this for a page of another site. A page anywhere can make a browser post
/// to a loopback address, and the browser then says where the page came from (Fetch §3.2).
fn is_cross_site(request: &Request) -> bool {
    let Some(origin) = request.header("origin") else {
        return false;
    };
    let host = request.header("host").map_or("", |host| host.as_str());
    origin.as_str() != format!("http://{host}")
}

fn show(value: &Value) -> Response {
    text(StatusCode::Ok, JSON, format!("{value}\n"))
}

fn refuse(status: StatusCode, clause: &str) -> Response {
    text(status, JSON, format!("{}\n", json!({ "error": clause })))
}

fn html() -> Response {
    let mut response = text(
        StatusCode::Ok,
        "text/html; charset=utf-8",
        page::HTML.to_owned(),
    );
    response.insert_header("content-security-policy", page::POLICY);
    response.insert_header("referrer-policy", "no-referrer");
    response
}

fn text(status: StatusCode, kind: &str, body: String) -> Response {
    let mut response = Response::new(status);
    response.set_body(body);
    response.insert_header("content-type", kind);
    response.insert_header("cache-control", "no-store");
    response.insert_header("x-content-type-options", "nosniff");
    response
}

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::admin_client::Answer;
    use crate::net::admin_client::Ask;
    use crate::net::admin_client::ask;
    use crate::net::admin_serve::AdminListener;
    use crate::observe::Shape;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn plane() -> AdminPlane {
        AdminPlane {
            metrics: Metrics::new(&Shape::default()),
            measure: Box::new(|| ()),
            live: LiveTable::new(1),
            now_micros: || 0,
            upstreams: Box::new(|| json!({ "upstreams": [] })),
            config: Box::new(|| json!({})),
            drain: Box::new(|| json!({ "stage": "serving" })),
            readiness: Arc::new(Readiness::new()),
            token: None,
            changes: Changes::Refused,
        }
    }

    /// Serves on loopback in a thread that ends with the test process.
    fn serve(plane: AdminPlane) -> SocketAddr {
        let listener = AdminListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, plane) = (listener.local(), Arc::new(plane));
        let handler = move |request| {
            let plane = Arc::clone(&plane);
            async move { plane.answer(&request).await }
        };
        std::thread::spawn(move || runtime(listener.serve(handler, |_| ())));
        address
    }

    fn runtime<F: Future>(future: F) -> F::Output {
        futures::executor::block_on(future)
    }

    fn fetch(address: SocketAddr, method: Method, path: &str, token: Option<&str>) -> Answer {
        runtime(ask(
            Ask {
                address,
                method,
                path,
                token,
            },
            Duration::from_secs(5),
        ))
        .unwrap()
    }

    fn request(method: Method, path: &str) -> Request {
        Request::new(
            method,
            http_types::Url::parse(&format!("http://a{path}")).unwrap(),
        )
    }

    fn status(plane: &AdminPlane, method: Method, path: &str) -> u16 {
        runtime(plane.answer(&request(method, path)))
            .status()
            .into()
    }

    #[test]
    fn everything_that_is_shown_is_served_over_a_socket() {
        let address = serve(plane());
        for path in [
            "/",
            "/metrics",
            "/livez",
            "/connections",
            "/upstreams",
            "/config",
        ] {
            let answer = fetch(address, Method::Get, path, None);
            assert_eq!(answer.status, 200, "{path}");
            assert!(!answer.body.is_empty(), "{path}");
        }
        let answer = fetch(address, Method::Get, "/connections?limit=5", None);
        assert!(serde_json::from_str::<Value>(&answer.body).is_ok());
    }

    #[test]
    fn metrics_say_which_version_of_the_text_format_they_are() {
        let response = runtime(plane().answer(&request(Method::Get, "/metrics")));
        let kind = response.header("content-type").unwrap().as_str();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    }

    #[test]
    fn an_unknown_path_is_404_and_a_wrong_method_405_with_allow() {
        let plane = plane();
        assert_eq!(status(&plane, Method::Get, "/nothing"), 404);
        assert_eq!(status(&plane, Method::Head, "/metrics"), 200);
        let response = runtime(plane.answer(&request(Method::Post, "/metrics")));
        assert_eq!(response.header("allow").unwrap().as_str(), "GET, HEAD");
        assert_eq!(status(&plane, Method::Get, "/drain"), 200);
        let response = runtime(plane.answer(&request(Method::Get, "/reload")));
        assert_eq!(u16::from(response.status()), 405);
        assert_eq!(response.header("allow").unwrap().as_str(), "POST");
    }

    #[test]
    fn readiness_says_why_not() {
        let plane = plane();
        let readyz = |ready| {
            plane.readiness.set(ready);
            status(&plane, Method::Get, "/readyz")
        };
        assert_eq!(readyz(Ready::Starting), 503);
        assert_eq!(readyz(Ready::Serving), 200);
        assert_eq!(readyz(Ready::Draining), 503);
        let answer = fetch(serve(plane), Method::Get, "/readyz", None);
        assert_eq!(answer.body, "draining: no new work is wanted\n");
    }

    #[test]
    fn the_token_is_asked_for_on_everything_but_the_probes() {
        let token = Token::parse("s3cret").ok();
        let address = serve(AdminPlane { token, ..plane() });
        for path in ["/", "/metrics", "/connections", "/upstreams", "/config"] {
            assert_eq!(
                fetch(address, Method::Get, path, None).status,
                401,
                "{path}"
            );
            assert_eq!(
                fetch(address, Method::Get, path, Some("wrong")).status,
                401,
                "{path}"
            );
            assert_eq!(
                fetch(address, Method::Get, path, Some("s3cret")).status,
                200,
                "{path}"
            );
        }
        assert_eq!(fetch(address, Method::Post, "/drain", None).status, 401);
        assert_eq!(fetch(address, Method::Get, "/livez", None).status, 200);
        assert_eq!(fetch(address, Method::Get, "/readyz", None).status, 503);
    }

    #[test]
    fn nothing_is_changed_unless_it_is_allowed() {
        assert_eq!(status(&plane(), Method::Post, "/drain"), 403);
        let readiness = Arc::new(Readiness::new());
        let told = Arc::clone(&readiness);
        let drain: Act = Box::new(move || {
            told.set(Ready::Draining);
            Ok(())
        });
        let reload: Reload = Box::new(|| Box::pin(async { Err("line 3 is wrong".to_owned()) }));
        let dismiss: Dismiss = Box::new(|_| None);
        let plane = AdminPlane {
            changes: Changes::Allowed {
                drain,
                reload,
                dismiss,
            },
            ..plane()
        };
        let address = serve(plane);
        assert_eq!(fetch(address, Method::Post, "/drain", None).status, 202);
        assert_eq!(readiness.state(), Ready::Draining);
        let answer = fetch(address, Method::Post, "/reload", None);
        assert_eq!(
            (answer.status, &*answer.body),
            (409, "{\"error\":\"line 3 is wrong\"}\n")
        );
    }

    #[test]
    fn a_page_of_another_site_cannot_change_anything() {
        let changes = Changes::Allowed {
            drain: Box::new(|| Ok(())),
            reload: Box::new(|| Box::pin(async { Ok(Applied::default()) })),
            dismiss: Box::new(|_| None),
        };
        let plane = AdminPlane { changes, ..plane() };
        let mut foreign = request(Method::Post, "/drain");
        foreign.insert_header("host", "127.0.0.1:9901");
        foreign.insert_header("origin", "http://evil.example");
        assert_eq!(u16::from(runtime(plane.answer(&foreign)).status()), 403);
        foreign.insert_header("origin", "http://127.0.0.1:9901");
        assert_eq!(u16::from(runtime(plane.answer(&foreign)).status()), 202);
        assert_eq!(status(&plane, Method::Post, "/reload"), 200);
    }

    #[test]
    fn the_page_comes_with_its_policy() {
        let response = runtime(plane().answer(&request(Method::Get, "/")));
        let policy = response.header("content-security-policy").unwrap().as_str();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }
}
