//! A second, independent encoder of what clients send: as plain as the tables of the specification, and sharing nothing with the codec.

/// Two bytes of length, then the bytes.
pub fn bin(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![(bytes.len() / 256) as u8, (bytes.len() % 256) as u8];
    out.extend(bytes);
    out
}

/// Variable Byte Integer, by the algorithm in section 1.5.5 of 5.0.
pub fn var(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 128);
    }
}

/// Parts behind each other.
pub fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A packet: first byte, Remaining Length, body.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = cat(parts);
    cat(&[&[first], &var(body.len()), &body])
}

/// A property block with its length.
pub fn props(parts: &[&[u8]]) -> Vec<u8> {
    let block = cat(parts);
    cat(&[&var(block.len()), &block])
}

/// A CONNECT of 3.1.1; `payload` begins with the client id.
pub fn connect3(flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &[b"\x00\x04MQTT\x04", &[flags], b"\x00\x3c", &cat(payload)])
}

/// A CONNECT of 5.0; `payload` begins with the client id.
pub fn connect5(flags: u8, properties: &[&[u8]], payload: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &[b"\x00\x04MQTT\x05", &[flags], b"\x00\x3c", &props(properties), &cat(payload)])
}

/// A PUBLISH of 5.0 at QoS 0 to topic `t` with these properties and the payload `p`.
pub fn publish5(properties: &[&[u8]]) -> Vec<u8> {
    packet(0x30, &[&bin("t"), &props(properties), b"p"])
}
