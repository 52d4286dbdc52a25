//! Fixed headers: lengths, limits, flags.

use super::{encoder::*, *};

#[test]
fn every_first_byte_is_judged_as_table_2_2_says() {
    let mut allowed = 0;
    for first in 0..=255u8 {
        let (kind, flags) = (first >> 4, first & 15);
        let good = match kind {
            0 => false,
            // [MQTT-3.3.1-4] no QoS 3, [MQTT-3.3.1-2] no DUP at QoS 0
            3 => (flags >> 1) & 3 != 3 && !(flags & 8 != 0 && (flags >> 1) & 3 == 0),
            6 | 8 | 10 => flags == 2,
            _ => flags == 0,
        };
        assert_eq!(frame(&[first, 0], 100).is_ok(), good, "{first:#04x}");
        // The same verdict as soon as the first byte is there.
        assert_eq!(frame(&[first], 100).is_ok(), good, "{first:#04x}");
        allowed += usize::from(good);
    }
    assert_eq!(allowed, 24);
}

#[test]
fn remaining_lengths_of_one_to_four_bytes() {
    let cases = [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455];
    for remaining in cases {
        let header = cat(&[&[0x30], &var(remaining)]);
        let whole = header.len() + remaining;
        assert!(is_shortest(whole, remaining) && !is_shortest(whole + 1, remaining), "{remaining}");
        for cut in 0..header.len() {
            let needed = if cut < 2 { 2 } else { cut + 1 };
            assert_eq!(frame(&header[..cut], whole), Ok(Framed::Incomplete { needed }), "{remaining} {cut}");
        }
        let expected = if remaining == 0 {
            Framed::Complete { first: 0x30, body: &[], length: 2 }
        } else {
            Framed::Incomplete { needed: whole }
        };
        assert_eq!(frame(&header, whole), Ok(expected), "{remaining}");
        // The limit counts the whole packet, and the header is enough to know.
        let large = DecodeError::TooLarge { size: whole, limit: whole - 1 };
        assert_eq!(frame(&header, whole - 1), Err(large));
        assert_eq!(large.reason_code(), 0x95);
    }
}

#[test]
fn a_remaining_length_of_five_bytes_is_malformed() {
    for tail in [&[][..], &[0x00], &[0x80, 0x01]] {
        let bytes = cat(&[b"\x30\x80\x80\x80\x80", tail]);
        assert_eq!(frame(&bytes, usize::MAX).unwrap_err().reason_code(), 0x81);
    }
    assert_eq!(frame(b"\x30\x80\x80\x80", usize::MAX), Ok(Framed::Incomplete { needed: 5 }));
}

#[test]
fn an_over_long_remaining_length_is_let_through() {
    let complete = Framed::Complete { first: 0xc0, body: &[], length: 5 };
    assert_eq!(frame(b"\xc0\x80\x80\x80\x00", usize::MAX), Ok(complete));
}

#[test]
fn what_follows_the_packet_is_left_alone() {
    let two = cat(&[b"\x40\x02\x00\x01", b"\xc0\x00"]);
    assert_eq!(frame(&two, 4), Ok(Framed::Complete { first: 0x40, body: b"\x00\x01", length: 4 }));
    assert_eq!(frame(&two[..3], 4), Ok(Framed::Incomplete { needed: 4 }));
    assert_eq!(frame(b"", 4), Ok(Framed::Incomplete { needed: 2 }));
}

#[test]
fn wildcards_and_nul_are_found_wherever_they_stand() {
    let mut refused = 0;
    for length in 1..=40usize {
        for place in 0..length {
            for byte in 0..128u8 {
                let mut topic = vec![b'x'; length];
                topic[place] = byte;
                let odd = matches!(byte, 0 | b'+' | b'#');
                let bytes = packet(0x30, &[&bin(&topic)]);
                assert_eq!(read(&bytes, Version::V3).is_err(), odd, "{byte:#04x} at {place} of {length}");
                refused += usize::from(odd);
            }
        }
    }
    assert_eq!(refused, 3 * 40 * 41 / 2);
    for topic in ["å+", "日本日本日本日本#", "\u{23ff}\u{10ffff}+"] {
        assert_eq!(read(&packet(0x30, &[&bin(topic)]), Version::V5).unwrap_err().reason_code(), 0x90);
    }
}
