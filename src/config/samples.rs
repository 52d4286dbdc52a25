//! Tests over whole files: the samples beside the shipped configuration, and the shipped files themselves.

use super::*;

/// Loads texts as if they were files.
fn load_texts(butler: Option<&str>, broker: Option<&str>) -> Result<Loaded, ConfigErrors> {
    let dir = std::env::temp_dir().join(format!("sense-butler-config-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: Option<&str>| {
        text.map(|text| {
            std::fs::write(dir.join(name), text).unwrap();
            PathBuf::from(name)
        })
    };
    let options = LoadOptions {
        config: write("butler.yaml", butler),
        broker_config: write("broker.toml", broker),
        cwd: dir.clone(),
        data_dir: dir.join("data"),
        host_name: "sense1".to_owned(),
        ..LoadOptions::default()
    };
    let loaded = load(&options);
    std::fs::remove_dir_all(&dir).unwrap();
    loaded
}

#[test]
fn nothing_at_all_is_a_working_configuration() {
    let loaded = load_texts(None, None).unwrap();
    assert_eq!(loaded.settings.udp.session_port, Some(9997));
    assert!(loaded.settings.mqtt.succeeded.send && loaded.settings.mqtt.session.is_some());
    let written: Vec<_> = loaded.broker.listeners.iter().map(|listener| listener.written.as_str()).collect();
    assert_eq!(written, ["localhost:1883"]);
    assert!(loaded.broker.listeners[0].anonymous_rights.start);
}

#[test]
fn a_misspelt_key_is_named_with_its_line() {
    let errors = load_texts(Some("Butler:\n  mqttConfig:\n    brokerPrt: 1884\n"), None).unwrap_err();
    let text = errors.to_string();
    assert!(text.contains("butler.yaml:3:5: Butler.mqttConfig.brokerPrt"), "{text}");
    assert!(text.contains("did you mean `brokerPort`?"), "{text}");
}
