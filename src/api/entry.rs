//! The one warp filter: takes a request apart, lets the doors and the router judge it, and answers it whatever happens.
//!
//! Invariants: nothing of a request is acted on before the doors have let it in; a handler that panics is answered 500 and counted, one that takes
//! too long 503; every answer is counted once.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Instant,
};

use bytes::{Buf, Bytes};
use tokio_util::sync::CancellationToken;
use warp::{
    Filter, Reply, Stream,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::HeaderName},
    path::FullPath,
    reply::Response,
};

use super::{
    answer::{Answer, Request},
    body,
    connection::Site,
    console::{
        self, Pieces, Visit, check_wire,
        visit::{Marks, Refusal},
    },
    docker_health,
    doors::{Caller, Whence},
    fault::{Fault, Kind, Space},
    idle::{Flowing, Seat, Work},
    publish,
    router::{self, Resource},
    state::State,
    tasks,
};
use crate::{bus::Bus, config::tokens::Token};

/// The filter that serves one connection. `hang_up` closes it, whatever is being sent.
pub(super) fn filter(
    site: Site,
    caller: Caller,
    (seat, hang_up): (Seat, CancellationToken),
) -> impl Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    // A slow subscriber makes the connection wait whose messages it would lose, and no other.
    let lane = match &site {
        Site::Api(state) => Some(state.setup.bus.apart()),
        Site::DockerHealth(_) => None,
    };
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, query, headers, body| {
            let (site, work, hang_up, lane) = (site.clone(), seat.work(), hang_up.clone(), lane.clone());
            async move {
                match site {
                    Site::Api(state) => {
                        api(state, (caller, hang_up, work, lane), method, path, query, headers, body).await
                    }
                    Site::DockerHealth(generation) => {
                        respond(docker_health::answer(generation, method.as_str(), &router::tidy(path.as_str())))
                    }
                }
            }
        })
        .recover(|_| async { Ok::<_, std::convert::Infallible>(unreadable()) })
        .unify()
}

/// What warp itself could not take apart; its filters above cannot fail on a first reading, so this is a defect.
fn unreadable() -> Response {
    respond(Fault::new(Kind::Internal, "the request could not be read").answer(Space::Own))
}

async fn api<S, B>(
    state: Arc<State>,
    // The work lasts until the answer is made, which hyper sends out before it lets go of the connection; or as long as its body flows.
    (caller, hang_up, work, lane): (Caller, CancellationToken, Work, Option<Bus>),
    method: Method,
    path: FullPath,
    query: String,
    headers: HeaderMap,
    body: S,
) -> Response
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let begun = Instant::now();
    let path = router::tidy(path.as_str()).into_owned();
    let space = Space::of(&path, state.setup.generation);
    let origin = listed_origin(&state, &headers);
    // Any other method is no publish and no start: whoever sends it learns so at the first try.
    let soft = softly(&path, &query).filter(|_| method == Method::POST);
    let (mut route, mut pieces) = (None, None);
    let mut body = pin!(body);
    let request = Incoming { state: &state, caller, hang_up, lane, method: &method, path, query, headers: &headers };
    let outcome = request.serve(body.as_mut(), (&mut route, &mut pieces)).await;
    let told = match outcome {
        Ok(answer) => answer.into(),
        Err(fault) => {
            if fault.kind != Kind::Slow && !awaits_permission(&headers) {
                body::drain(body).await;
            }
            if let Some(soft) = soft {
                Told { status: fault.kind.status(space), answer: soft(&fault) }
            } else {
                fault.answer(space).into()
            }
        }
    };
    let Told { status, answer } = told;
    state.setup.counters.answered(route.map_or("none", Resource::name), status, begun.elapsed());
    let preflight = method == Method::OPTIONS;
    let mut response = respond(answer);
    if let Some(pieces) = pieces {
        *response.body_mut() = warp::reply::stream(Flowing::new(pieces, work)).into_response().into_body();
    }
    if let Some(origin) = origin {
        allow_origin(response.headers_mut(), origin, preflight);
    }
    response
}

/// How what is wrong is told to a load script that must not end over it, where the request asks for that.
fn softly(path: &str, query: &str) -> Option<fn(&Fault) -> Answer> {
    if publish::is_soft(path, query) {
        Some(publish::soft)
    } else {
        tasks::is_soft(path, query).then_some(tasks::soft_fault)
    }
}

/// An answer, and the status it is counted with: a load script that wants 200 whatever happens gets it, and metrics the truth.
struct Told {
    status: u16,
    answer: Answer,
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        Self { status: answer.status, answer }
    }
}

/// A request whose head was read.
struct Incoming<'a> {
    state: &'a Arc<State>,
    caller: Caller,
    hang_up: CancellationToken,
    lane: Option<Bus>,
    method: &'a Method,
    path: String,
    query: String,
    headers: &'a HeaderMap,
}

impl Incoming<'_> {
    /// The answer; `pieces`: its body, where that has no end.
    async fn serve<S, B>(
        self,
        body: Pin<&mut S>,
        (route, pieces): (&mut Option<Resource>, &mut Option<Pieces>),
    ) -> Result<Answer, Fault>
    where
        S: Stream<Item = Result<B, warp::Error>>,
        B: Buf,
    {
        let state = self.state;
        state.doors.check(self.caller, Whence { origin: self.one("origin"), host: self.one("host") })?;
        let resource = router::find(state, &self.path)?;
        *route = Some(resource);
        let sent = self.method.as_str();
        let method = router::effective_method(sent, self.one("x-http-method-override"))?.unwrap_or(sent);
        if let Some(options) = router::check_method(resource, method)? {
            return Ok(options);
        }
        if resource.is_console() {
            check_wire(self.caller)?;
        }
        let marks = Marks { header: self.one(console::HEADER), cookie: self.one("cookie") };
        let visit = Visit::read(state, self.caller, marks)?;
        let token = match self.admit(resource, method, visit.as_ref()) {
            Ok(token) => token,
            Err(refusal) => return refusal.into_answer(),
        };
        let body = self.read_body(resource, body).await?;
        let request = Request {
            method: method.to_owned(),
            headers: plain_headers(self.headers),
            path: self.path,
            query: self.query,
            body,
            peer: self.caller.peer,
            token,
            visit,
            lane: self.lane,
        };
        if resource == Resource::ConsoleLive {
            let (head, body) = console::stream(state, &request, &self.hang_up)?;
            *pieces = body;
            return Ok(head);
        }
        run(state, resource, request).await
    }

    /// Whether the request may have the resource: by a log-in to the console where it comes from there, else by the token that is shown, or
    /// else by where it comes from. The refusal of a start is written down.
    fn admit(&self, resource: Resource, method: &str, visit: Option<&Visit>) -> Result<Option<Arc<Token>>, Refusal> {
        let state = self.state;
        let outcome = match (visit, resource.deed()) {
            (Some(visit), Some(deed)) => visit.check(state, deed).map(|()| None),
            (None, _) if resource.is_of_console() => Err(Refusal::Denied(console::visit::missing())),
            _ if resource.needs_trust() => self.judge(resource, method).map_err(Refusal::Denied),
            _ => Ok(None),
        };
        if let Some(Refusal::Denied(fault)) = outcome.as_ref().err().filter(|_| resource.is_audited()) {
            let user = visit.and_then(|visit| visit.visitor.as_ref()?.name());
            tasks::refused(state, (self.caller.peer.ip(), user.as_deref()), fault);
        }
        outcome
    }

    fn judge(&self, resource: Resource, method: &str) -> Result<Option<Arc<Token>>, Fault> {
        let (state, peer) = (self.state, self.caller.peer.ip());
        // Butler looks at no token: what a proxy in between adds changes nothing for those who need none.
        let ignores_others = state.doors.trusts(peer) && Space::of(&self.path, state.setup.generation) != Space::Own;
        match state.bearers.judge(self.one("authorization"), ignores_others)? {
            Some(token) => state.bearers.check(&token, resource.rights(method)).map(|()| Some(token)),
            None => state.doors.check_source(self.caller).map(|()| None),
        }
    }

    /// A header's value; one that is no text, or there twice with different values, is taken as one that fits nothing.
    fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        if values.any(|other| other != first) {
            return Some("");
        }
        Some(first.to_str().unwrap_or(""))
    }

    async fn read_body<S, B>(&self, resource: Resource, body: Pin<&mut S>) -> Result<Bytes, Fault>
    where
        S: Stream<Item = Result<B, warp::Error>>,
        B: Buf,
    {
        let limit = resource.largest_body(self.state.setup.rest.max_body);
        let announced = self.one("content-length").and_then(|length| length.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(body::too_large(limit));
        }
        body::read(body, limit, self.state.limits.body).await
    }
}

/// Runs the handler, bounded in time and with its panics confined.
async fn run(state: &Arc<State>, resource: Resource, request: Request) -> Result<Answer, Fault> {
    let limit = resource.limit(&state.limits);
    let outcome = if resource.outlives_caller() {
        tokio::time::timeout(limit, detached(state, resource, request)).await
    } else {
        tokio::time::timeout(limit, confined(router::dispatch(state, resource, request))).await
    };
    match outcome {
        Ok(Ok(answer)) => answer,
        Ok(Err(Panicked)) => {
            state.setup.counters.panics.inc();
            Err(Fault::new(Kind::Internal, "the request met a defect of sense-butler; its log says more"))
        }
        Err(_) => Err(Fault::new(Kind::Overdue, format!("no answer within {limit:?}; the outcome is unknown"))),
    }
}

/// The handler in a task of its own, which goes on when the caller hangs up or the time is over.
async fn detached(state: &Arc<State>, resource: Resource, request: Request) -> Result<Result<Answer, Fault>, Panicked> {
    let owned = state.clone();
    let work = async move { router::dispatch(&owned, resource, request).await };
    state.background.spawn(work).await.map_err(|_| Panicked)
}

/// The marker of a handler that panicked.
struct Panicked;

/// A future whose panic is an error of this request and of nothing else. The panic hook has logged it by then.
async fn confined<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

fn plain_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let plain = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), plain(value))).collect()
}

/// Whether the caller waits for `100 Continue` before it sends the body: then there is nothing to drain.
fn awaits_permission(headers: &HeaderMap) -> bool {
    headers.contains_key("expect")
}

/// The request's origin, if the administrator listed it: a browser there needs to be told so.
fn listed_origin(state: &State, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get("origin")?;
    state.doors.origin_is_listed(origin.to_str().ok()?).then(|| origin.clone())
}

/// The CORS headers (Fetch standard, section 3.3) for a listed origin.
fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    headers.insert("access-control-allow-origin", origin);
    headers.insert("vary", HeaderValue::from_static("origin"));
    if preflight {
        let methods = HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE");
        headers.insert("access-control-allow-methods", methods);
        headers.insert(
            "access-control-allow-headers",
            HeaderValue::from_static("authorization, content-type, idempotency-key, x-http-method-override"),
        );
        headers.insert("access-control-max-age", HeaderValue::from_static("600"));
    }
}

/// An answer as warp's response.
fn respond(answer: Answer) -> Response {
    let mut response = warp::http::Response::new(answer.body).into_response();
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(kind) = answer.content_type {
        headers.insert("content-type", HeaderValue::from_static(kind));
    }
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
