//! The app's public address: requests go to the routed web dynos in turn, each with the router's log line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::answer::pretty;
use crate::platform::{Dyno, State as DynoState};
use crate::world::{Inner, World};

#[derive(Clone)]
struct Desk {
    world: Arc<World>,
    turn: Arc<AtomicUsize>,
}

/// To how many dynos one request is brought before it fails.
const CONNECTIONS: usize = 10;

pub fn app(world: Arc<World>) -> Router {
    Router::new().fallback(route).with_state(Desk { world, turn: Arc::default() })
}

/// Where a request can go now.
enum Way {
    To(Chosen),
    /// A dyno is booting: requests wait for it.
    Wait,
    Closed(Trouble),
}

/// The dyno whose turn it is.
struct Chosen {
    name: String,
    id: String,
    /// `None` for a simulated dyno.
    port: Option<u16>,
}

impl Chosen {
    /// The dyno's answer, with headers that tell which boot gave it.
    async fn answer(&self, way: Option<TcpStream>, request: Request, request_id: &str) -> Result<Response, Trouble> {
        let mut response = match way {
            Some(stream) => forward(request, stream, request_id).await.map_err(|_| Trouble::Closed)?,
            None => pretty(StatusCode::OK, &json!({"dyno": self.name, "id": self.id})),
        };
        for (name, value) in [("standin-dyno", &self.name), ("standin-dyno-id", &self.id)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Crashed,
    NoDynos,
    BootTimeout,
    Refused,
    Closed,
    Maintenance,
}

impl Trouble {
    /// The platform's code and its words.
    fn code(self) -> (&'static str, &'static str) {
        match self {
            Self::Crashed => ("H10", "App crashed"),
            Self::NoDynos => ("H14", "No web processes running"),
            Self::Closed => ("H13", "Connection closed without response"),
            Self::BootTimeout => ("H20", "App boot timeout"),
            Self::Refused => ("H21", "Backend connection refused"),
            Self::Maintenance => ("H80", "Maintenance mode"),
        }
    }
}

async fn route(State(desk): State<Desk>, request: Request) -> Response {
    let began = Instant::now();
    let head = format!("method={} path=\"{}\" host={}", request.method(), request.uri(), host(&request));
    let request_id = desk.world.lock().platform.next_id();
    let chosen = desk.connect().await;
    let (chosen, answer) = match chosen {
        Ok((dyno, way)) => {
            let answer = dyno.answer(way, request, &request_id).await;
            (Some(dyno), answer)
        }
        Err(trouble) => (None, Err(trouble)),
    };
    let dyno = chosen.as_ref().map_or("", |dyno| &dyno.name);
    let head = format!("{head} request_id={request_id} fwd=\"127.0.0.1\" dyno={dyno}");
    let (line, response) = match answer {
        Ok(response) => {
            let (service, status) = (began.elapsed().as_millis(), response.status().as_u16());
            let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            let tail = format!("status={status} bytes={} protocol=http1.1 tls=false", length.unwrap_or_default());
            (format!("at=info {head} connect=0ms service={service}ms {tail}"), response)
        }
        Err(trouble) => {
            let (code, words) = trouble.code();
            let at = if matches!(trouble, Trouble::Maintenance) { "info" } else { "error" };
            let tail = "connect= service= status=503 bytes= protocol=http1.1 tls=false";
            let line = format!("at={at} code={code} desc=\"{words}\" {head} {tail}");
            (line, (StatusCode::SERVICE_UNAVAILABLE, format!("{code} {words}\n")).into_response())
        }
    };
    desk.world.lock().logs.push("heroku", "router", &line, Timestamp::now());
    desk.world.tell();
    response
}

fn host(request: &Request) -> &str {
    request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

impl Desk {
    /// A dyno, and a connection to it unless it is a simulated one. Where one refuses, another one is tried, as the platform's
    /// routers do, ten times at most: a dyno that was chosen may be told to end before it is reached.
    async fn connect(&self) -> Result<(Chosen, Option<TcpStream>), Trouble> {
        for _ in 0..CONNECTIONS {
            let dyno = self.choose().await?;
            let Some(port) = dyno.port else { return Ok((dyno, None)) };
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                return Ok((dyno, Some(stream)));
            }
        }
        Err(Trouble::Refused)
    }

    /// The next dyno in turn. Waits for one that boots.
    async fn choose(&self) -> Result<Chosen, Trouble> {
        let mut changes = self.world.subscribe();
        let deadline = tokio::time::Instant::now() + self.world.lock().platform.timing.boot_timeout;
        loop {
            let way = self.way(&self.world.lock());
            match way {
                Way::To(chosen) => return Ok(chosen),
                Way::Closed(trouble) => return Err(trouble),
                Way::Wait => {
                    if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                        return Err(Trouble::BootTimeout);
                    }
                }
            }
        }
    }

    fn way(&self, inner: &Inner) -> Way {
        if inner.maintenance {
            return Way::Closed(Trouble::Maintenance);
        }
        let routed: Vec<&Dyno> = inner.platform.dynos.iter().filter(|dyno| dyno.routed).collect();
        let up: Vec<&&Dyno> = routed.iter().filter(|dyno| dyno.state == DynoState::Up).collect();
        if !up.is_empty() {
            let dyno = up[self.turn.fetch_add(1, Ordering::Relaxed) % up.len()];
            let port = inner.vitals.get(&dyno.id).map(|vitals| vitals.port);
            return Way::To(Chosen { name: dyno.name.clone(), id: dyno.id.clone(), port });
        }
        if routed.iter().any(|dyno| dyno.state == DynoState::Starting) {
            return Way::Wait;
        }
        Way::Closed(if routed.is_empty() { Trouble::NoDynos } else { Trouble::Crashed })
    }
}

async fn forward(mut request: Request, stream: TcpStream, request_id: &str) -> anyhow::Result<Response> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    request.headers_mut().insert("x-request-id", HeaderValue::try_from(request_id)?);
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    // As on the platform, where TLS ends at the router: an app that forces TLS must not redirect.
    request.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static("https"));
    Ok(sender.send_request(request).await?.map(Body::new))
}
