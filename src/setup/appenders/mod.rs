//! The log appenders of the Sense services: the shipped file for an address, merged into a file that is there already.
//!
//! Invariants: of a file that is there nothing changes but our own appenders and the references to them; what is not understood is refused
//! before anything is written; what comes out was read again and has every appender once. Merging twice is the same as merging once.

mod edit;

use std::fmt;

use roxmltree::{Document, Node};

use self::edit::{Edits, elements, named};
use crate::config::HostPort;

/// Qlik Sense refuses larger files.
const LARGEST: usize = 1 << 20;

/// A service with log appenders of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Ends of tasks.
    Scheduler,
    /// Users.
    Proxy,
}

impl Service {
    /// The name of its directory below that of Qlik Sense.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Scheduler => "Scheduler",
            Self::Proxy => "Proxy",
        }
    }

    /// The shipped file, and the port in it.
    const fn shipped(self) -> (&'static str, &'static str) {
        match self {
            Self::Scheduler => (include_str!("../../../deploy/qlik/Scheduler/LocalLogConfig.xml"), "9998"),
            Self::Proxy => (include_str!("../../../deploy/qlik/Proxy/LocalLogConfig.xml"), "9997"),
        }
    }

    /// The shipped file with this address.
    fn text(self, target: &HostPort) -> String {
        let (text, port) = self.shipped();
        // A host is an address or a name: nothing in it means something in XML.
        let address = format!(r#"name="remoteAddress" value="{}""#, target.host);
        let text = text.replace(r#"name="remoteAddress" value="127.0.0.1""#, &address);
        let written = format!(r#"name="remotePort" value="{port}""#);
        text.replace(&written, &format!(r#"name="remotePort" value="{}""#, target.port))
    }
}

/// Why a file is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// It is no XML, or has a document type.
    #[error("it is no XML that can be read: {0}; correct it (the service cannot read it either), or merge by hand")]
    Xml(String),
    /// It is something else than log appenders.
    #[error("its outermost element is `{0}`, where log appenders have `configuration` alone; merge by hand")]
    Root(String),
    /// An element is there twice, or where it is not expected.
    #[error(
        "the appender `{0}` is there more than once, or not directly below `configuration`; take it out by hand and try again"
    )]
    Strange(String),
    /// It would be too large.
    #[error(
        "it would have {0} bytes, and Qlik Sense refuses files of more than {LARGEST}; take out what is not needed"
    )]
    Large(usize),
    /// What came out is not what was meant.
    #[error("this file is not understood; merge by hand")]
    Defect,
}

impl From<roxmltree::Error> for MergeError {
    fn from(error: roxmltree::Error) -> Self {
        Self::Xml(error.to_string())
    }
}

/// What was done with one of our elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It was not there.
    Added,
    /// It was there and said something else.
    Replaced,
    /// It was there.
    Unchanged,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Added => "added",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        })
    }
}

/// A file with our appenders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Its text.
    pub text: String,
    /// What was done, in the order of the shipped file.
    pub deeds: Vec<(Deed, String)>,
    /// Appenders of others that send to the same place.
    pub also: Vec<String>,
}

impl Merged {
    /// Whether anything was done.
    pub fn is_changed(&self) -> bool {
        self.deeds.iter().any(|(deed, _)| *deed != Deed::Unchanged)
    }
}

/// The file of a service with our appenders for this address. `before`: what is there; `None`, or nothing but blanks: no file.
///
/// # Errors
/// [`MergeError`]: it is to be left as it is.
pub fn merge(service: Service, target: &HostPort, before: Option<&str>) -> Result<Merged, MergeError> {
    let ours = service.text(target);
    let shipped = Document::parse(&ours)?;
    let Some(before) = before.filter(|text| !text.trim_start_matches('\u{feff}').trim().is_empty()) else {
        let all = elements(shipped.root_element()).map(|element| (Deed::Added, title(element))).collect();
        return Ok(Merged { text: ours.clone(), deeds: all, also: Vec::new() });
    };
    let document = Document::parse(before)?;
    let root = document.root_element();
    match (root.tag_name().name(), root.tag_name().namespace()) {
        ("configuration", None) => {}
        (name, None) => return Err(MergeError::Root(name.to_owned())),
        (name, Some(space)) => return Err(MergeError::Root(format!("{name} of the namespace {space}"))),
    }
    let mut merging = Merging { root, before, ours: &ours, edits: Edits::of(before), deeds: Vec::new() };
    for element in elements(shipped.root_element()) {
        match element.tag_name().name() {
            "appender" => merging.appender(element)?,
            _ => merging.logger(element)?,
        }
    }
    let also = elements(root).filter(|element| sends_to(*element, target)).map(name).map(str::to_owned);
    let also = also.filter(|name| named(shipped.root_element(), "appender", name).next().is_none()).collect();
    let Merging { edits, deeds, .. } = merging;
    let merged = Merged { text: edits.applied().ok_or(MergeError::Defect)?, deeds, also };
    check(&merged.text, shipped.root_element())?;
    Ok(merged)
}

/// A merge under way.
struct Merging<'a, 'input> {
    root: Node<'a, 'input>,
    before: &'a str,
    ours: &'a str,
    edits: Edits<'a>,
    deeds: Vec<(Deed, String)>,
}

impl Merging<'_, '_> {
    fn appender(&mut self, element: Node<'_, '_>) -> Result<(), MergeError> {
        let name = name(element);
        let text = self.ours.get(element.range()).ok_or(MergeError::Defect)?;
        let anywhere =
            self.root.descendants().filter(|node| node.has_tag_name("appender") && self::name(*node) == name);
        let (all, mut found) = (anywhere.count(), named(self.root, "appender", name));
        let deed = match (found.next(), all) {
            (None, 0) => {
                self.edits.append(self.root, &format!("\n\n  {text}")).ok_or(MergeError::Defect)?;
                Deed::Added
            }
            (Some(there), 1) => {
                let known = self.before.get(there.range()).ok_or(MergeError::Defect)?;
                if known.replace("\r\n", "\n") == text {
                    Deed::Unchanged
                } else {
                    self.edits.replace(there.range(), text);
                    Deed::Replaced
                }
            }
            _ => return Err(MergeError::Strange(name.to_owned())),
        };
        self.deeds.push((deed, title(element)));
        Ok(())
    }

    /// A logger of the same name gets the references it lacks; where there is none, ours comes in.
    fn logger(&mut self, element: Node<'_, '_>) -> Result<(), MergeError> {
        let name = name(element);
        let there: Vec<_> = named(self.root, "logger", name).collect();
        let Some(first) = there.first() else {
            let text = self.ours.get(element.range()).ok_or(MergeError::Defect)?;
            self.edits.append(self.root, &format!("\n\n  {text}")).ok_or(MergeError::Defect)?;
            self.deeds.push((Deed::Added, title(element)));
            return Ok(());
        };
        let known: Vec<&str> = there.iter().flat_map(|logger| references(*logger)).collect();
        let missing: Vec<&str> = references(element).filter(|reference| !known.contains(reference)).collect();
        let lines: String =
            missing.iter().map(|reference| format!("\n    <appender-ref ref=\"{reference}\" />")).collect();
        let deed = if missing.is_empty() {
            Deed::Unchanged
        } else {
            self.edits.append(*first, &lines).ok_or(MergeError::Defect)?;
            Deed::Added
        };
        self.deeds.push((deed, format!("references in {}", title(element))));
        Ok(())
    }
}

fn name<'a>(element: Node<'a, '_>) -> &'a str {
    element.attribute("name").unwrap_or_default()
}

/// What an element is called for people.
fn title(element: Node<'_, '_>) -> String {
    format!("{} {}", element.tag_name().name(), name(element))
}

fn references<'a>(logger: Node<'a, 'a>) -> impl Iterator<Item = &'a str> {
    elements(logger).filter(|child| child.has_tag_name("appender-ref")).filter_map(|child| child.attribute("ref"))
}

/// Whether an appender sends datagrams to this place.
fn sends_to(appender: Node<'_, '_>, target: &HostPort) -> bool {
    let is = |wanted: &str, value: &str| {
        elements(appender).any(|param| {
            let (name, found) = (param.attribute("name"), param.attribute("value"));
            name.is_some_and(|name| name.eq_ignore_ascii_case(wanted)) && found == Some(value)
        })
    };
    appender.has_tag_name("appender")
        && appender.attribute("type").is_some_and(|kind| kind.contains("UdpAppender"))
        && is("remoteAddress", &target.host)
        && is("remotePort", &target.port.to_string())
}

/// What came out can be read, and has every one of ours once.
fn check(text: &str, shipped: Node<'_, '_>) -> Result<(), MergeError> {
    if text.len() > LARGEST {
        return Err(MergeError::Large(text.len()));
    }
    let document = Document::parse(text).map_err(|_| MergeError::Defect)?;
    let root = document.root_element();
    let is_there = |element: Node<'_, '_>| {
        let kind = element.tag_name().name();
        let there: Vec<_> = named(root, kind, name(element)).collect();
        let known: Vec<&str> = there.iter().flat_map(|logger| references(*logger)).collect();
        match kind {
            "appender" => there.len() == 1,
            _ => references(element).all(|reference| known.contains(&reference)),
        }
    };
    if elements(shipped).all(is_there) { Ok(()) } else { Err(MergeError::Defect) }
}

#[cfg(test)]
mod tests;
