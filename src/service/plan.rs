//! What an installation will do, step by step: printed first, then done.
//!
//! Invariants: what is printed is what is done, to the letter of each argument; the first step that must succeed and does not ends it, and says
//! what was done before; programs of the system are called by their full path, without a shell.

use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use super::ServiceError;

/// A service as Windows registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The account it runs as.
    pub account: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Registers the service with Windows.
    Register(Registration),
    /// Makes a directory with those above it.
    Directory(PathBuf),
    /// Writes a file, readable for everybody.
    Write {
        /// Which.
        file: PathBuf,
        /// What.
        text: String,
    },
    /// Calls a program of the system.
    Call {
        /// Full path.
        program: PathBuf,
        /// Arguments.
        arguments: Vec<OsString>,
    },
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What for, in words.
    pub what: String,
    /// What is done.
    pub action: Action,
    /// Whether the installation is no good without it.
    pub must: bool,
}

impl Step {
    /// A step the installation is no good without.
    pub fn must(what: impl Into<String>, action: Action) -> Self {
        Self { what: what.into(), action, must: true }
    }

    /// A step that can be done by hand later.
    pub fn may(what: impl Into<String>, action: Action) -> Self {
        Self { what: what.into(), action, must: false }
    }
}

/// All steps, and what there is to know besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In their order.
    pub steps: Vec<Step>,
    /// Said in front.
    pub notes: Vec<String>,
}

/// Registers a service with Windows and answers what could not be set, in words.
pub type Register<'a> = &'a mut dyn FnMut(&Registration) -> Result<Vec<String>, ServiceError>;

impl Plan {
    /// Says what will be done.
    ///
    /// # Errors
    /// If `out` cannot be written to.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(out, "{:>2}. {}\n    {}", number + 1, step.what, step.action)?;
        }
        if !self.notes.is_empty() {
            writeln!(out, "\nto know:")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "- {note}"))
    }

    /// Does it.
    ///
    /// # Errors
    /// The first step that must succeed and did not; the steps before it are done.
    pub fn carry_out(&self, register: Register<'_>, out: &mut dyn Write) -> Result<(), ServiceError> {
        for (number, step) in self.steps.iter().enumerate() {
            let number = number + 1;
            match step.action.carry_out(&step.what, register) {
                Ok(warnings) => {
                    writeln!(out, "{number:>2}. done")?;
                    warnings.iter().try_for_each(|warning| writeln!(out, "    warning: {warning}"))?;
                }
                Err(error) if step.must => {
                    writeln!(out, "{number:>2}. FAILED; the steps before it are done, those behind it are not")?;
                    return Err(error);
                }
                Err(error) => writeln!(out, "{number:>2}. not done, do it by hand if you need it: {error}")?,
            }
        }
        Ok(())
    }
}

impl Action {
    /// A program of the system and its arguments.
    pub fn call(program: impl AsRef<Path>, arguments: impl IntoIterator<Item: Into<OsString>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self::Call { program: program.as_ref().to_owned(), arguments }
    }

    fn carry_out(&self, what: &str, register: Register<'_>) -> Result<Vec<String>, ServiceError> {
        match self {
            Self::Register(registration) => return register(registration),
            Self::Directory(directory) => {
                fs::create_dir_all(directory).map_err(|error| cannot(what, directory, error))?
            }
            Self::Write { file, text } => write(file, text).map_err(|error| cannot(what, file, error))?,
            Self::Call { program, arguments } => call(what, program, arguments)?,
        }
        Ok(Vec::new())
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(file, text)
}

fn cannot(what: &str, file: &Path, source: io::Error) -> ServiceError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ServiceError::NotAllowed { what: what.to_owned() },
        _ => ServiceError::File { file: file.to_owned(), source },
    }
}

/// Calls a program and takes its exit code for its word.
fn call(what: &str, program: &Path, arguments: &[OsString]) -> Result<(), ServiceError> {
    let refused = |why| ServiceError::Refused { what: what.to_owned(), why };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| refused(format!("{} cannot be called: {error}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let said: Vec<&str> = said.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    Err(refused(format!("{} ended with {}: {}", program.display(), output.status, said.join(" "))))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(registration) => registration.fmt(f),
            Self::Directory(directory) => write!(f, "mkdir {}", quoted(directory.as_os_str())),
            Self::Write { file, text } => write!(f, "write {} ({} lines)", file.display(), text.lines().count()),
            Self::Call { program, arguments } => {
                // The name is enough for people; the whole path is what is called.
                let name = program.file_name().unwrap_or(program.as_os_str());
                write!(f, "{}", quoted(name))?;
                arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))
            }
        }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", quoted(self.program.as_os_str()))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))?;
        write!(
            f,
            "\n    as {}, automatic (delayed) start, started again 2, 10 and 60 seconds after a failure",
            self.account
        )
    }
}

/// An argument as it would be typed.
fn quoted(argument: &std::ffi::OsStr) -> String {
    let text = argument.to_string_lossy();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace()) {
        format!("\"{text}\"")
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: &Registration) -> Result<Vec<String>, ServiceError> {
        panic!("nothing is to be registered")
    }

    fn printed(plan: &Plan) -> String {
        let mut out = Vec::new();
        plan.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        let plan = Plan {
            steps: vec![
                Step::must("make room", Action::Directory("/a b".into())),
                Step::may("open a door", Action::call("/usr/sbin/netsh", ["add", "name=a b", ""])),
                Step::must("a file", Action::Write { file: "/x".into(), text: "1\n2\n".into() }),
            ],
            notes: vec!["beware".into()],
        };
        assert_eq!(
            printed(&plan),
            " 1. make room\n    mkdir \"/a b\"\n 2. open a door\n    netsh add \"name=a b\" \"\"\n 3. a file\n    write /x (2 lines)\n\nto know:\n- beware\n"
        );
    }

    #[test]
    fn a_service_is_registered_by_whoever_can() {
        let registration =
            Registration { program: "/p".into(), arguments: vec!["run".into()], account: "NT SERVICE\\x".into() };
        let plan = Plan { steps: vec![Step::must("register", Action::Register(registration.clone()))], notes: vec![] };
        assert!(printed(&plan).contains("    /p run\n    as NT SERVICE\\x, automatic (delayed) start"));
        let (mut seen, mut out) = (Vec::new(), Vec::new());
        let mut register = |registration: &Registration| {
            seen.push(registration.clone());
            Ok(vec!["not everything".to_owned()])
        };
        plan.carry_out(&mut register, &mut out).unwrap();
        assert_eq!(seen, [registration]);
        assert_eq!(String::from_utf8(out).unwrap(), " 1. done\n    warning: not everything\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_step_that_must_succeed_ends_it_and_another_does_not() {
        let directory = std::env::temp_dir().join(format!("sense-butler-plan-{}", uuid::Uuid::new_v4().simple()));
        let file = directory.join("sub/file");
        let shell = |text: &str| Action::call("/bin/sh", ["-c", text]);
        let plan = Plan {
            steps: vec![
                Step::must("directory", Action::Directory(directory.clone())),
                Step::may("optional", shell("echo no; exit 3")),
                Step::must("file", Action::Write { file: file.clone(), text: "text".into() }),
                Step::must("needed", shell("echo never >&2; exit 4")),
                Step::must("behind", Action::Directory(directory.join("behind"))),
            ],
            notes: Vec::new(),
        };
        let mut out = Vec::new();
        let error = plan.carry_out(&mut nobody, &mut out).unwrap_err().to_string();
        let out = String::from_utf8(out).unwrap();
        assert!(error.starts_with("needed: /bin/sh ended with ") && error.ends_with(": never"), "{error}");
        assert!(out.contains(" 2. not done, do it by hand") && out.contains(": no\n"), "{out}");
        assert!(out.contains(" 4. FAILED") && !out.contains(" 5."), "{out}");
        assert_eq!(fs::read_to_string(file).unwrap(), "text");
        assert!(!directory.join("behind").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let plan = Plan { steps: vec![Step::must("ask", Action::call("/no/such/program", [""]))], notes: vec![] };
        let error = plan.carry_out(&mut nobody, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("ask: /no/such/program cannot be called: "), "{error}");
    }
}
