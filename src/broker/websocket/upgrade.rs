//! The request that asks for a WebSocket: may it have one, and if not, what is it told.
//!
//! Invariants: at most [`LONGEST`] bytes are looked at; a page of a foreign origin, or a name that is not this machine's, learns nothing but
//! that (403); whoever is refused changes nothing.

use tokio_tungstenite::tungstenite::{
    Error,
    error::ProtocolError,
    handshake::{
        machine::TryParse as _,
        server::{Request, create_response, write_response},
    },
    http::{HeaderValue, header},
};

use crate::net::origin::{Allowed, Here};

/// Bytes a request may have.
pub(super) const LONGEST: usize = 8 << 10;
/// The subprotocol of MQTT 3.1.1 and 5.0 (`[MQTT-6.0.0-3]`). `mqttv3.1` named MQTT 3.1, which is not served.
const SUBPROTOCOL: &str = "mqtt";
const END: &[u8] = b"\r\n\r\n";

/// What a listener admits.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Path of the requests, e.g. `/mqtt`; a query behind it does not matter.
    pub path: String,
    /// Pages and names beyond the listener's own.
    pub allowed: Allowed,
    /// Our end of the connection.
    pub here: Here,
}

/// What is to be done about the bytes read so far.
#[derive(Debug)]
pub enum Verdict {
    /// The request is not complete.
    More,
    /// Answer with `response`; what follows the first `consumed` bytes are frames.
    Accept {
        /// The whole answer.
        response: Vec<u8>,
        /// Length of the request.
        consumed: usize,
    },
    /// Answer with [`Refusal::response`] and close.
    Refuse(Refusal),
}

/// An answer that opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    phrase: &'static str,
    headers: &'static str,
    /// What is wrong, for whoever wrote the client.
    pub text: &'static str,
}

impl Refusal {
    const fn new(status: u16, phrase: &'static str, text: &'static str) -> Self {
        Self { status, phrase, headers: "", text }
    }

    const fn with(self, headers: &'static str) -> Self {
        Self { headers, ..self }
    }

    /// The whole answer.
    pub fn response(&self) -> Vec<u8> {
        let Self { status, phrase, headers, text } = self;
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{headers}connection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {length}\r\n\r\n{text}\n"
        )
        .into_bytes()
    }
}

const MALFORMED: Refusal = Refusal::new(400, "Bad Request", "this is no HTTP/1.1 request for a WebSocket");
const HANDSHAKE: Refusal =
    Refusal::new(400, "Bad Request", "Sec-WebSocket-Key is missing or is not 16 bytes in base64 (RFC 6455)");
const PROTOCOL: Refusal = Refusal::new(
    400,
    "Bad Request",
    "the client must offer the WebSocket subprotocol mqtt (Sec-WebSocket-Protocol: mqtt); MQTT 3.1.1 and 5.0 are served",
);
const ORIGIN: Refusal = Refusal::new(
    403,
    "Forbidden",
    "a web page of this origin may not connect; if it should, add its origin to allowed_origins of this listener in broker.toml",
);
const HOST: Refusal = Refusal::new(
    403,
    "Forbidden",
    "the Host header names neither localhost nor this address; if that name is right, add it to allowed_hosts of this listener in broker.toml",
);
const PATH: Refusal =
    Refusal::new(404, "Not Found", "there is no MQTT at this path; it is `path` of the listener in broker.toml");
const METHOD: Refusal =
    Refusal::new(405, "Method Not Allowed", "a WebSocket is asked for with GET").with("allow: GET\r\n");
const UPGRADE: Refusal =
    Refusal::new(426, "Upgrade Required", "this is an MQTT listener for WebSocket clients, not a web page")
        .with("upgrade: websocket\r\n");
const VERSION: Refusal = Refusal::new(426, "Upgrade Required", "version 13 of WebSocket is needed (RFC 6455)")
    .with("upgrade: websocket\r\nsec-websocket-version: 13\r\n");
const TOO_LONG: Refusal = Refusal::new(431, "Request Header Fields Too Large", "the request is longer than 8 KiB");

/// Whether bytes behind the first `searched` can have completed the request or made it too long: so that a request that comes byte by byte is
/// not searched from its beginning each time.
pub(super) fn may_be_complete(head: &[u8], searched: usize) -> bool {
    head.len() > LONGEST || end(head.get(searched.saturating_sub(END.len() - 1)..).unwrap_or_default()).is_some()
}

fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(END.len()).position(|window| window == END)
}

/// Judges what was read so far.
pub fn examine(bytes: &[u8], rules: &Rules) -> Verdict {
    match end(bytes.get(..LONGEST).unwrap_or(bytes)) {
        None if bytes.len() >= LONGEST => Verdict::Refuse(TOO_LONG),
        None => Verdict::More,
        Some(at) => {
            let consumed = at + END.len();
            match answer(bytes.get(..consumed).unwrap_or_default(), rules) {
                Ok(response) => Verdict::Accept { response, consumed },
                Err(refusal) => Verdict::Refuse(refusal),
            }
        }
    }
}

fn answer(head: &[u8], rules: &Rules) -> Result<Vec<u8>, Refusal> {
    let (length, request) = Request::try_parse(head).map_err(|error| unparsed(&error))?.ok_or(MALFORMED)?;
    if length != head.len() {
        // A bare line feed ended the request earlier: two readers would disagree on what follows.
        return Err(MALFORMED);
    }
    check_whence(&request, rules)?;
    if request.uri().path() != rules.path {
        return Err(PATH);
    }
    let mut response = create_response(&request).map_err(|error| no_upgrade(&error))?;
    if !offers(&request) {
        return Err(PROTOCOL);
    }
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let mut written = Vec::new();
    write_response(&mut written, &response).map_err(|_| MALFORMED)?;
    Ok(written)
}

/// The rules for `Origin` and `Host`: every one there is must pass, and there is at most one `Host`.
fn check_whence(request: &Request, rules: &Rules) -> Result<(), Refusal> {
    let passes = |origin: &HeaderValue| origin.to_str().is_ok_and(|text| rules.allowed.passes_origin(rules.here, text));
    if !request.headers().get_all(header::ORIGIN).iter().all(passes) {
        return Err(ORIGIN);
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !rules.allowed.passes_host(rules.here, host) {
        return Err(HOST);
    }
    Ok(())
}

fn offers(request: &Request) -> bool {
    let lists = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).any(|name| name.trim() == SUBPROTOCOL)
}

fn unparsed(error: &Error) -> Refusal {
    match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => METHOD,
        _ => MALFORMED,
    }
}

fn no_upgrade(error: &Error) -> Refusal {
    match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => METHOD,
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
        ) => UPGRADE,
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => VERSION,
        _ => HANDSHAKE,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost:9001\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";

    fn rules() -> Rules {
        let allowed = Allowed::new(&["https://panel.example".into()], &["sense1".into()], "localhost");
        Rules { path: "/mqtt".into(), allowed, here: Here { local: "127.0.0.1:9001".parse().unwrap(), tls: false } }
    }

    fn status(request: &str) -> u16 {
        match examine(request.as_bytes(), &rules()) {
            Verdict::More => 0,
            Verdict::Accept { consumed, .. } => {
                assert_eq!(consumed, request.len());
                101
            }
            Verdict::Refuse(refusal) => refusal.status,
        }
    }

    #[test]
    fn the_answer_is_that_of_the_standard() {
        let Verdict::Accept { response, .. } = examine(GOOD.as_bytes(), &rules()) else { panic!("refused") };
        let response = String::from_utf8(response).unwrap().to_lowercase();
        // The key and its answer are the example of RFC 6455, section 1.3.
        for line in [
            "http/1.1 101 switching protocols\r\n",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
            "sec-websocket-protocol: mqtt\r\n",
        ] {
            assert!(response.contains(line), "{response}");
        }
        assert!(response.ends_with("\r\n\r\n") && !response.contains("extensions"));
    }

    #[test]
    fn every_refusal_has_its_status() {
        let cases = [
            ("GET /mqtt", "GET /mqtt?token=1", 101),
            ("GET /mqtt", "GET /mqtt/", 404),
            ("GET /mqtt", "GET /", 404),
            ("GET /mqtt", "POST /mqtt", 405),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("HTTP/1.1\r\n", "HTTP/1.1\n\n", 400),
            ("Connection: keep-alive, Upgrade\r\n", "", 426),
            ("Upgrade: websocket", "Upgrade: h2c", 426),
            ("Version: 13", "Version: 8", 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 400),
            ("Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n", "", 400),
            ("mqttv3.1, mqtt", "mqttv3.1", 400),
            ("mqttv3.1, mqtt", "MQTT", 400),
            ("Host: localhost:9001", "Host: evil.example", 403),
            ("Host: localhost:9001\r\n", "", 403),
            ("Host: localhost:9001", "Host: [::1]:9001", 101),
            ("Host: localhost:9001", "Host: Sense1", 101),
            ("Host: localhost:9001", "Host: localhost\r\nHost: localhost", 403),
            ("\r\nUpgrade", "\r\nOrigin: http://localhost:9001\r\nUpgrade", 101),
            ("\r\nUpgrade", "\r\nOrigin: https://panel.example\r\nUpgrade", 101),
            ("\r\nUpgrade", "\r\nOrigin: https://evil.example\r\nUpgrade", 403),
            ("\r\nUpgrade", "\r\nOrigin: null\r\nUpgrade", 403),
            ("\r\nUpgrade", "\r\nOrigin: \u{e9}\r\nUpgrade", 403),
            ("\r\nUpgrade", "\r\nOrigin: https://panel.example\r\nOrigin: http://x\r\nUpgrade", 403),
            ("\r\nUpgrade", "\r\nno colon\r\nUpgrade", 400),
            ("\r\n\r\n", "\r\n", 0),
        ];
        for (old, new, expected) in cases {
            assert!(GOOD.contains(old), "{old}");
            assert_eq!(status(&GOOD.replacen(old, new, 1)), expected, "{old:?} -> {new:?}");
        }
        let long = format!("GET /mqtt HTTP/1.1\r\nx: {}", "y".repeat(LONGEST));
        assert_eq!(status(&long), 431);
        assert_eq!(status(&format!("{long}\r\n\r\n")), 431);
        let many = "a: b\r\n".repeat(200);
        assert_eq!(status(&GOOD.replacen("Host", &format!("{many}Host"), 1)), 400, "too many headers");
    }

    proptest! {
        #[test]
        fn bytes_are_judged_alike_however_they_come(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = GOOD.as_bytes().to_vec();
            for (at, with) in edits {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
            let whole = examine(&bytes, &rules());
            let cut = cut.index(bytes.len());
            // A beginning is either not complete, or already all that counts.
            match (examine(&bytes[..cut], &rules()), &whole) {
                (Verdict::More, _) => {}
                (Verdict::Accept { consumed, .. }, Verdict::Accept { consumed: all, .. }) => prop_assert_eq!(consumed, *all),
                (Verdict::Refuse(some), Verdict::Refuse(all)) => prop_assert_eq!(some, *all),
                (some, all) => prop_assert!(false, "{some:?} {all:?}"),
            }
            match whole {
                Verdict::Refuse(refusal) => prop_assert!((400..=431).contains(&refusal.status)),
                Verdict::Accept { consumed, .. } => prop_assert!(bytes[..consumed].ends_with(END)),
                Verdict::More => prop_assert!(end(&bytes).is_none()),
            }
            prop_assert_eq!(may_be_complete(&bytes, cut) || end(&bytes[..cut]).is_some(), end(&bytes).is_some());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = examine(&bytes, &rules());
            let _ = examine(&[&bytes[..], END].concat(), &rules());
        }
    }
}
