//! What must hold for any bytes a WebSocket client may send. Shared by the fuzz target and by the unit test that replays its corpus; the parent
//! module brings the names into scope.

use super::{Allowed, Frames, Here, Rules, Verdict, examine};

/// Bytes of a frame and a message.
const LIMIT: usize = 1 << 10;

/// The rules of a listener on the loopback.
fn rules() -> Rules {
    let allowed = Allowed::new(&["https://panel.example".to_owned()], &["sense1".to_owned()], "localhost");
    Rules { path: "/mqtt".to_owned(), allowed, here: Here { local: ([127, 0, 0, 1], 9001).into(), tls: false } }
}

/// Judges the request and takes the frames behind it, or all as frames where there is no request; gives the number of payload bytes, or the status of
/// a refusal.
pub fn walk(input: &[u8]) -> usize {
    match examine(input, &rules()) {
        Verdict::More => {
            assert!(input.len() < 8 << 10);
            frames(input)
        }
        Verdict::Accept { response, consumed } => {
            assert!(response.starts_with(b"HTTP/1.1 101 ") && response.ends_with(b"\r\n\r\n"));
            frames(input.split_at(consumed).1)
        }
        Verdict::Refuse(refusal) => {
            assert!((400..=431).contains(&refusal.status));
            assert!(refusal.response().starts_with(format!("HTTP/1.1 {} ", refusal.status).as_bytes()));
            usize::from(refusal.status)
        }
    }
}

/// Taken whole or byte by byte, frames give the same.
fn frames(input: &[u8]) -> usize {
    let mut whole = input.to_vec();
    let mut taker = Frames::new(LIMIT);
    let kept = taker.take(&mut whole);
    assert!(kept <= input.len());
    let (mut again, mut pieces) = (Frames::new(LIMIT), Vec::new());
    for byte in input {
        let mut one = [*byte];
        let count = again.take(&mut one);
        pieces.extend(one.iter().take(count));
    }
    assert_eq!(whole.get(..kept), Some(pieces.as_slice()));
    assert_eq!((taker.violation(), taker.ping()), (again.violation(), again.ping()));
    kept
}
