//! Where the configuration files are, when nobody says.

use std::{
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::LoadOptions;

/// Largest configuration file, bytes; Butler's annotated template has about 60,000.
const LARGEST: u64 = 4 << 20;

/// `butler.yaml`: the one that was named, or the first that exists.
pub(super) fn butler(options: &LoadOptions) -> Option<PathBuf> {
    if let Some(file) = &options.config {
        return Some(options.cwd.join(file));
    }
    let environment = options.node_env.as_deref().filter(|name| is_plain(name)).unwrap_or("production");
    first(options, &["config/butler.yaml".to_owned(), format!("config/{environment}.yaml")])
}

/// `broker.toml`: the one that was named, or the first that exists; a `butler.yaml` that was named brings the one beside it along.
pub(super) fn broker(options: &LoadOptions) -> Option<PathBuf> {
    if let Some(file) = &options.broker_config {
        return Some(options.cwd.join(file));
    }
    let beside = options.config.as_ref().map(|file| options.cwd.join(file).with_file_name("broker.toml"));
    if let Some(file) = beside.filter(|file| file.is_file()) {
        return Some(file);
    }
    first(options, &["broker.toml".to_owned(), "config/broker.toml".to_owned()])
}

/// In the working directory, beside the executable, then in the data directory.
fn first(options: &LoadOptions, names: &[String]) -> Option<PathBuf> {
    let data = options.data();
    let places = [Some(&options.cwd), options.exe_dir.as_ref(), Some(&data)];
    let files = places.into_iter().flatten().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    files.into_iter().find(|file| file.is_file())
}

/// Whether a word can be the stem of a file in `config/` and nothing else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

/// The text of a file. Windows editors write UTF-8 with a mark in front, or something else altogether; the latter is said.
pub(super) fn read(file: &Path) -> Result<String, String> {
    let unreadable = |error| format!("the file cannot be read: {error}");
    if fs::metadata(file).map_err(unreadable)?.len() > LARGEST {
        return Err(format!("the file is larger than {LARGEST} bytes; this cannot be a configuration"));
    }
    let bytes = fs::read(file).map_err(unreadable)?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("the file is UTF-16; save it as UTF-8".to_owned());
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).map(<[u8]>::to_vec).unwrap_or(bytes);
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} holds a character that is not UTF-8; save the file as UTF-8")
    })
}

/// This machine's name, as far as the system tells without being asked over the network; empty if it does not.
pub fn host_name() -> String {
    let from_file = |file| fs::read_to_string(file).ok();
    ["COMPUTERNAME", "HOSTNAME"]
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .or_else(|| from_file("/proc/sys/kernel/hostname"))
        .or_else(|| from_file("/etc/hostname"))
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// This machine's addresses, as the system lists them; none if it does not.
pub fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(|interface| interface.ip().to_canonical()).collect()
}

/// Where the program keeps its data when nobody says: beside other programs' data for a service, `./data` otherwise.
pub fn default_data_dir(service: bool) -> PathBuf {
    match (service, cfg!(windows)) {
        (false, _) => PathBuf::from("data"),
        (true, false) => PathBuf::from("/var/lib/sense-butler"),
        (true, true) => {
            let root = env::var_os("ProgramData").unwrap_or_else(|| r"C:\ProgramData".into());
            PathBuf::from(root).join("sense-butler")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let dir = env::temp_dir().join(format!("sense-butler-find-{}", uuid::Uuid::new_v4().simple()));
            for sub in ["work", "site", "data"] {
                fs::create_dir_all(dir.join(sub)).unwrap();
            }
            Self(dir)
        }

        fn file(&self, name: &str) -> PathBuf {
            let file = self.0.join(name);
            fs::write(&file, "").unwrap();
            file
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_broker_file_beside_the_named_file_comes_first() {
        let scratch = Scratch::new();
        let mut options = LoadOptions { cwd: scratch.0.join("work"), ..LoadOptions::default() };
        options.overrides.data = Some(scratch.0.join("data"));
        assert_eq!(broker(&options), None);
        let in_data = scratch.file("data/broker.toml");
        assert_eq!(broker(&options), Some(in_data), "--data is searched, too");
        let in_work = scratch.file("work/broker.toml");
        assert_eq!(broker(&options), Some(in_work.clone()));
        options.config = Some(scratch.file("site/production.yaml"));
        assert_eq!(broker(&options), Some(in_work), "nothing lies beside it");
        let beside = scratch.file("site/broker.toml");
        assert_eq!(broker(&options), Some(beside));
        options.broker_config = Some("other.toml".into());
        assert_eq!(broker(&options), Some(scratch.0.join("work/other.toml")), "the named one is the one");
    }
}
