//! A strict reader of OpenMetrics 1.0 text (the specification's ABNF and its rules in prose): what it accepts, every scraper can read.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::collections::{BTreeMap, BTreeSet};

/// Labels in the order of their names.
pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// With the ending its type gives it.
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: Option<String>,
    pub samples: Vec<Sample>,
}

/// The endings of the samples of a type.
fn endings(kind: &str) -> &'static [&'static str] {
    match kind {
        "gauge" | "unknown" => &[""],
        "counter" => &["_total", "_created"],
        "histogram" => &["_bucket", "_count", "_sum", "_created"],
        "info" => &["_info"],
        _ => &[],
    }
}

/// Reads a whole exposition.
///
/// # Errors
/// The first thing that is not as the specification says, with its line.
pub fn parse(text: &str) -> Result<Vec<Family>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF` and a line feed")?;
    let mut families: Vec<Family> = Vec::new();
    let mut names = BTreeSet::new();
    let mut series = BTreeSet::new();
    for (number, line) in body.split_terminator('\n').enumerate() {
        read_line(line, &mut families, &mut names, &mut series)
            .map_err(|why| format!("line {}: {why}: `{line}`", number + 1))?;
    }
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("a line does not end".into());
    }
    families.iter().try_for_each(check)?;
    disjoint(&families)?;
    Ok(families)
}

type Series = BTreeSet<(String, Labels)>;

fn read_line(
    line: &str,
    families: &mut Vec<Family>,
    names: &mut BTreeSet<String>,
    series: &mut Series,
) -> Result<(), String> {
    if line.contains('\r') {
        return Err("a carriage return".into());
    }
    match line.strip_prefix('#') {
        Some(descriptor) => describe(descriptor, families, names),
        None => {
            let sample = sample(line)?;
            let family = families.last_mut().ok_or("a sample before any descriptor")?;
            let ending =
                sample.name.strip_prefix(&family.name).ok_or("a sample of another family, or one without a type")?;
            if !endings(&family.kind).contains(&ending) {
                return Err(format!("a {} has no sample with the ending `{ending}`", family.kind));
            }
            if !series.insert((sample.name.clone(), sample.labels.clone())) {
                return Err("this series was there already".into());
            }
            family.samples.push(sample);
            Ok(())
        }
    }
}

fn describe(descriptor: &str, families: &mut Vec<Family>, names: &mut BTreeSet<String>) -> Result<(), String> {
    let mut words = descriptor.strip_prefix(' ').ok_or("no blank behind `#`")?.splitn(3, ' ');
    let (keyword, name, rest) = (words.next().unwrap(), words.next().ok_or("no name")?, words.next());
    let rest = rest.ok_or("nothing behind the name")?;
    if !is_name(name, true) {
        return Err("no name of a metric".into());
    }
    let known = families.last().is_some_and(|family| family.name == name);
    if !known {
        if !names.insert(name.to_owned()) {
            return Err("this family was there already".into());
        }
        families.push(Family { name: name.to_owned(), kind: String::new(), help: None, samples: Vec::new() });
    }
    let family = families.last_mut().unwrap();
    if !family.samples.is_empty() {
        return Err("a descriptor behind samples".into());
    }
    match keyword {
        "TYPE" if !family.kind.is_empty() => Err("a second TYPE".into()),
        "TYPE" if endings(rest).is_empty() => Err("no such type".into()),
        "TYPE" => {
            family.kind = rest.to_owned();
            Ok(())
        }
        "HELP" if family.help.is_some() => Err("a second HELP".into()),
        "HELP" => {
            family.help = Some(unescape(rest)?);
            Ok(())
        }
        "UNIT" if name.ends_with(&format!("_{rest}")) => Ok(()),
        _ => Err("neither TYPE, HELP nor a UNIT that ends the name".into()),
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("no name of a metric".into());
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    Ok(Sample { name: name.to_owned(), labels, value: number(value)? })
}

/// The labels up to the closing brace, and what is behind it.
fn labels(text: &str) -> Result<(Labels, &str), String> {
    let (mut labels, mut rest) = (Labels::new(), text);
    if let Some(behind) = rest.strip_prefix('}') {
        return Ok((labels, behind));
    }
    loop {
        let (name, behind) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name, false) || name.starts_with("__") {
            return Err(format!("`{name}` is no name of a label"));
        }
        let end = closing(behind).ok_or("a value without an end")?;
        if labels.insert(name.to_owned(), unescape(&behind[..end])?).is_some() {
            return Err(format!("the label `{name}` twice"));
        }
        rest = &behind[end + 1..];
        match rest.split_at_checked(1) {
            Some((",", behind)) => rest = behind,
            Some(("}", behind)) => return Ok((labels, behind)),
            _ => return Err("neither `,` nor `}` behind a label".into()),
        }
    }
}

/// Where the first quotation mark is that is not escaped.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let (mut plain, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(c @ ('\\' | '"')) => plain.push(c),
                other => return Err(format!("`\\{}` is no escape", other.map(String::from).unwrap_or_default())),
            },
            c => plain.push(c),
        }
    }
    Ok(plain)
}

fn is_name(name: &str, metric: bool) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || (metric && c == ':');
    name.chars().next().is_some_and(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Nothing may stand behind it: this program writes neither timestamps nor exemplars.
fn number(text: &str) -> Result<f64, String> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    match text {
        "+Inf" | "Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if !text.is_empty() && text.chars().all(plain) => text.parse().map_err(|_| "no number".to_owned()),
        _ => Err("no number".into()),
    }
}

fn check(family: &Family) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{}: {why}", family.name));
    if family.kind.is_empty() {
        return wrong("it has no TYPE");
    }
    if family.help.as_ref().is_none_or(|help| help.trim().is_empty()) {
        return wrong("it has no HELP");
    }
    for Sample { name, labels, value } in &family.samples {
        let counts = family.kind == "counter" || name.ends_with("_bucket") || name.ends_with("_count");
        if counts && family.kind != "gauge" && (!value.is_finite() || *value < 0.0) {
            return wrong("a count is negative, infinite or no number");
        }
        if family.kind == "info" && *value != 1.0 {
            return wrong("an info has another value than 1");
        }
        if labels.contains_key("le") != (family.kind == "histogram" && name.ends_with("_bucket")) {
            return wrong("`le` belongs to buckets, and every bucket has it");
        }
    }
    if family.kind == "histogram" { histogram(family) } else { Ok(()) }
}

fn histogram(family: &Family) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{}: {why}", family.name));
    // Samples of one set of labels stand together.
    let mut groups: Vec<(Labels, Vec<&Sample>)> = Vec::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        match groups.iter().position(|(known, _)| *known == labels) {
            None => groups.push((labels, vec![sample])),
            Some(at) if at + 1 == groups.len() => groups[at].1.push(sample),
            Some(_) => return wrong("its samples are mixed"),
        }
    }
    for (_, samples) in groups {
        let of =
            |ending: &str| samples.iter().filter(|sample| sample.name.ends_with(ending)).copied().collect::<Vec<_>>();
        let (buckets, counts, sums) = (of("_bucket"), of("_count"), of("_sum"));
        let bounds: Vec<f64> = buckets.iter().map(|bucket| number(&bucket.labels["le"])).collect::<Result<_, _>>()?;
        if !bounds.windows(2).all(|pair| pair[0] < pair[1]) {
            return wrong("the bounds of its buckets do not rise");
        }
        if !buckets.windows(2).all(|pair| pair[0].value <= pair[1].value) {
            return wrong("its buckets are not cumulative");
        }
        if bounds.last() != Some(&f64::INFINITY) {
            return wrong("it has no bucket `+Inf`");
        }
        if counts.len() != 1 || sums.len() != 1 || buckets.last().map(|last| last.value) != Some(counts[0].value) {
            return wrong("its count is not that of the last bucket, or its sum is missing");
        }
    }
    Ok(())
}

/// No sample could be taken for one of another family.
fn disjoint(families: &[Family]) -> Result<(), String> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for family in families {
        let all = endings(&family.kind).iter().map(|ending| format!("{}{ending}", family.name));
        for name in all.chain([family.name.clone()]) {
            if let Some(other) = owners.insert(name.clone(), &family.name).filter(|other| *other != family.name) {
                return Err(format!("`{name}` could be of {other} and of {}", family.name));
            }
        }
    }
    Ok(())
}
