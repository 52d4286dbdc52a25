//! `GET /docs`: the document as a page, for a browser without internet. It reads the document like anybody else, shows it, and sends nothing.
//!
//! Building blocks, colours and icon are the console's, which may be switched off: so they are served from here as well.

use crate::{
    api::{
        answer::{Answer, Request},
        console,
        fault::{Fault, Kind},
    },
    console::page::{self, File},
};

/// Where it is.
pub(in crate::api) const ROOT: &str = "/docs";

/// A file of the page.
///
/// # Errors
/// 404.
pub(in crate::api) fn handle(request: &Request) -> Result<Answer, Fault> {
    let missing = || Fault::new(Kind::NotFound, "the page has no such file");
    find(&request.path).map(console::served).ok_or_else(missing)
}

fn find(path: &str) -> Option<File> {
    let name = path.strip_prefix(ROOT)?;
    let (content_type, text) = match name {
        "" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/docs.css" => ("text/css; charset=utf-8", include_str!("page/docs.css")),
        "/docs.js" => ("text/javascript; charset=utf-8", include_str!("page/docs.js")),
        "/dom.js" | "/style.css" | "/icon.svg" => return page::find(&format!("{}{name}", page::ROOT)),
        _ => return None,
    };
    Some(File { content_type, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_the_page_asks_for_is_there_and_nothing_else() {
        let mut ran = 0;
        for name in ["index.html", "docs.js", "docs.css"] {
            let path = if name == "index.html" { ROOT.to_owned() } else { format!("{ROOT}/{name}") };
            let text = find(&path).unwrap().text;
            for word in
                ["innerHTML", "http://", "https://", "eval(", "<style", " style=", " onclick=", "document.write"]
            {
                assert!(!text.contains(word), "{name}: {word}");
            }
            for asked in text.split(['"', '\'']).filter(|part| part.starts_with("/docs/")) {
                assert!(find(asked).is_some(), "{name} asks for {asked}");
                ran += 1;
            }
        }
        assert_eq!(ran, 6, "style.css, docs.css, docs.js, icon.svg twice, dom.js");
        for path in ["/docs/", "/docs/index.html", "/docs/main.js", "/docsdocs.js", "/docs/../docs.js", ""] {
            assert_eq!(find(path), None, "{path}");
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/openapi/page");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 3);
    }
}
