//! The files of the page, embedded: one document, its style, its scripts, an icon. Nothing is fetched from anywhere else.
//!
//! [`POLICY`] lets a browser run these scripts and no others, so that what clients call themselves and send cannot become part of the page even
//! if a script forgot that it is text.

/// Where the page is.
pub const ROOT: &str = "/console";

/// Content-Security-Policy (CSP level 3): scripts and styles of this server only, nothing inline, no frames around it, no forms to elsewhere.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// `Content-Type`
    pub content_type: &'static str,
    /// Its text.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        /// Names below [`ROOT`], and what they hold.
        const FILES: &[(&str, File)] = &[
            $(($name, File { content_type: $kind, text: include_str!(concat!("page/", $name)) })),*
        ];
    };
}

files! {
    "index.html": HTML,
    "style.css": CSS,
    "icon.svg": SVG,
    "main.js": SCRIPT,
    "server.js": SCRIPT,
    "dom.js": SCRIPT,
    "overview.js": SCRIPT,
    "live.js": SCRIPT,
    "clients.js": SCRIPT,
    "retained.js": SCRIPT,
    "tasks.js": SCRIPT,
    "publish.js": SCRIPT,
}

/// The file at a path, which begins with [`ROOT`].
pub fn find(path: &str) -> Option<File> {
    let name = match path.strip_prefix(ROOT)? {
        "" => "index.html",
        below => below.strip_prefix('/')?,
    };
    FILES.iter().find(|(known, _)| *known == name).map(|(_, file)| *file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths() {
        assert_eq!(find("/console").unwrap().content_type, HTML);
        assert_eq!(find("/console/main.js").unwrap().content_type, SCRIPT);
        for path in ["/console/", "/console/x", "/consolemain.js", "/console/../main.js", "/", ""] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded_and_named_by_another_one() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/page");
        let there: BTreeSet<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let embedded: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, embedded);
        for (name, _) in FILES.iter().filter(|(name, _)| *name != "index.html") {
            let is_named = |(other, file): &(&str, File)| other != name && file.text.contains(&format!("/{name}"));
            assert!(FILES.iter().any(is_named), "nobody asks for {name}");
        }
    }

    /// What the policy forbids is not there, so nothing of the page depends on it; and text is never made part of the document as markup.
    #[test]
    fn the_page_keeps_to_its_policy() {
        for (name, file) in FILES {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "<script>",
                "<style",
                " style=",
                "http://",
                "https://",
            ] {
                let namespace = word == "http://" && *name == "icon.svg";
                assert!(namespace || !file.text.contains(word), "{name}: {word}");
            }
            for handler in [" onclick=", " onload=", " onerror=", "javascript:"] {
                assert!(!file.text.contains(handler), "{name}: {handler}");
            }
        }
    }
}
