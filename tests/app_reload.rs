//! The program while `broker.toml` changes under it: users and rules are taken without a restart, a broken file changes nothing and is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/raw.rs"]
#[allow(dead_code)]
mod raw;

use std::net::SocketAddr;

use app::{App, Dir, PATIENCE};
use raw::{Hello, Raw};
use serde_json::Value;

/// What `hash-password` makes of `geheim`, cheaply.
fn hash() -> String {
    use argon2::PasswordHasher;
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon2.hash_password(b"geheim").unwrap().to_string()
}

fn user(name: &str) -> String {
    format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{}\"\n", hash())
}

/// Looks at health until it says what is wanted, or `broker.toml` is well for `None`.
async fn health_says(app: &App, wanted: Option<&str>) -> String {
    let look = async {
        loop {
            let health = app.json("/readyz").await;
            let part = |part: &&Value| part["name"] == "broker.toml";
            let part = health["parts"].as_array().unwrap().iter().find(part).unwrap().clone();
            let detail = part["detail"].as_str().unwrap_or_default().to_owned();
            assert_eq!(health["ready"], true, "a broken file does not make the program unready");
            if wanted.map_or(part["ready"] == true, |wanted| detail.contains(wanted)) {
                return detail;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("health says it in time")
}

#[tokio::test]
async fn users_and_rules_are_taken_while_it_runs_and_a_broken_file_is_not() {
    let dir = Dir::new();
    let listener = "[[listeners]]\nname = \"local\"\naddress = \"127.0.0.1:0\"\n";
    let before = [listener, &user("anna"), &user("bo")].concat();
    dir.write("broker.toml", &before);
    let app = App::run_at(&dir, &app::FREE_PORTS[2..], &[]).await;
    let address: SocketAddr = ([127, 0, 0, 1], app.mqtt().await).into();
    let hello = |name: &str| Hello::v5(name).user(name, "geheim");
    let (mut anna, connack) = Raw::connect(address, &hello("anna")).await;
    assert_eq!(connack[1], 0);
    let (mut bo, _) = Raw::connect(address, &hello("bo")).await;

    // Broken: nothing changes, and everybody who asks is told.
    dir.write("broker.toml", &[listener, &user("anna"), "[[users]]\nname = bo\n"].concat());
    let said = health_says(&app, Some("at line 8, column 8")).await;
    assert!(said.contains("the users and rules of before are in force") && !said.contains("bo"), "{said}");
    app.printed(|text| text.contains("broker.toml:8:8: ").then_some(())).await;
    let (_, metrics) = app.get("/metrics").await;
    assert!(metrics.contains("sense_butler_broker_file_errors{line=\"8\",column=\"8\"} 1"), "{metrics}");
    let (_again, connack) = Raw::connect(address, &hello("bo")).await;
    assert_eq!(connack[1], 0, "bo is who bo was");
    assert_eq!(bo.receive().await, Some((0xe0, vec![0x8e])), "the newer connection took over");

    // Bo goes, anna may not publish on one topic, and a limit waits for a restart.
    let rule = "[[access]]\ndeny = [\"publish\"]\nusers = [\"anna\"]\ntopics = [\"plant/#\"]\n";
    dir.write("broker.toml", &[listener, &user_again(&before, "anna"), rule, "[limits]\nclients = 7\n"].concat());
    health_says(&app, None).await;
    anna.publish("plant/a", b"x", 1, 1, false).await;
    assert_eq!(anna.receive().await.unwrap().1.get(2), Some(&0x87));
    let (_, connack) = Raw::connect(address, &hello("bo")).await;
    assert_eq!(connack[1], 0x86);
    app.printed(|text| (text.contains("needs a restart") && text.contains("\"limits\"")).then_some(())).await;

    // Emptied: nobody is left, and nobody else comes in.
    dir.write("broker.toml", "");
    assert_eq!(anna.receive().await, Some((0xe0, vec![0x98])));
    let (_, connack) = Raw::connect(address, &Hello::v5("anybody")).await;
    assert_eq!(connack[1], 0x87);
    app.stop().await;
}

/// A user with the hash of an earlier text: another one would end the connection.
fn user_again(text: &str, name: &str) -> String {
    let begin = format!("[[users]]\nname = \"{name}\"\n");
    let (_, rest) = text.split_once(&begin).unwrap();
    format!("{begin}{}\n", rest.lines().next().unwrap())
}
