//! The codec beside two libraries: speed, agreement, and what each lets through.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin codec [speed | agree | holes]`; without a word, all three. Ends with an error when a
//! packet the codec wrote is not read back equal by `rmqtt-codec`, or when the codec lets a wrong packet through.

mod agree;
mod holes;
mod speed;

fn main() {
    let wanted = std::env::args().nth(1);
    let run = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    if run("speed") {
        speed::print();
    }
    if run("agree") {
        agree::print();
    }
    if run("holes") {
        holes::print();
    }
}
