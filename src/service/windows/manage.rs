//! Install, uninstall, start, stop and look at the service, through Windows' service manager.
//!
//! Invariants: whoever starts or stops waits until it is so, within a bound, and says what came of it; what is there already is brought up to
//! date, not refused.

use std::{
    ffi::OsString,
    io, thread,
    time::{Duration, Instant},
};

use windows_service::{
    service::{
        Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl, ServiceExitCode,
        ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState, ServiceStatus,
        ServiceType,
    },
    service_manager::{ServiceManager, ServiceManagerAccess},
};

use crate::service::{
    NAME, ServiceError,
    control::{PRESHUTDOWN, Phase},
    plan::Registration,
};

/// What the list of services shows.
const DISPLAY_NAME: &str = "sense-butler (MQTT for Qlik Sense)";
const DESCRIPTION: &str =
    "MQTT broker, event bridge and REST API for Qlik Sense. `sense-butler doctor` says whether all is well.";
/// How long a start or stop may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Pauses before it is started again, after the first, second and every further failure.
const RESTARTS: [u64; 3] = [2, 10, 60];
/// A failure after this time is a first one again.
const RESET: Duration = Duration::from_secs(3_600);
/// Error numbers of Windows: there is no such service; it runs already; it does not run; it is being deleted.
const DOES_NOT_EXIST: i32 = 1060;
const ALREADY_RUNNING: i32 = 1056;
const NOT_ACTIVE: i32 = 1062;
const MARKED_FOR_DELETE: i32 = 1072;

/// How the service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its process, while there is one.
    pub process: Option<u32>,
    /// With which exit code it ended last; 0: in order, or it never ran.
    pub exit_code: u32,
    /// Whether it starts with the machine.
    pub automatic: bool,
    /// The account.
    pub account: String,
    /// What is started.
    pub command: String,
}

/// What Windows says to a request.
pub fn words(error: &windows_service::Error) -> String {
    match error {
        windows_service::Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn number(error: &windows_service::Error) -> Option<i32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}

/// An error of the library as ours.
fn refused(what: &str) -> impl Fn(windows_service::Error) -> ServiceError + '_ {
    move |error| {
        let denied =
            matches!(&error, windows_service::Error::Winapi(error) if error.kind() == io::ErrorKind::PermissionDenied);
        let what = what.to_owned();
        match number(&error) {
            _ if denied => ServiceError::NotAllowed { what },
            Some(DOES_NOT_EXIST) => ServiceError::NotInstalled,
            _ => ServiceError::Refused { what, why: words(&error) },
        }
    }
}

fn manager(access: ServiceManagerAccess, what: &str) -> Result<ServiceManager, ServiceError> {
    ServiceManager::local_computer(None::<&str>, access).map_err(refused(what))
}

fn open(access: ServiceAccess, what: &str) -> Result<Service, ServiceError> {
    manager(ServiceManagerAccess::CONNECT, what)?.open_service(NAME, access).map_err(refused(what))
}

/// Whether this command line may change services.
///
/// # Errors
/// [`ServiceError::NotAllowed`] if not.
pub fn may_install(what: &str) -> Result<(), ServiceError> {
    manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE, what).map(drop)
}

/// Registers the service, or brings it up to date. Answers what could not be set.
///
/// # Errors
/// If it cannot be registered.
pub fn register(registration: &Registration) -> Result<Vec<String>, ServiceError> {
    let what = "registering the service";
    let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE, what)?;
    let info = ServiceInfo {
        name: NAME.into(),
        display_name: DISPLAY_NAME.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: registration.program.clone(),
        launch_arguments: registration.arguments.clone(),
        dependencies: Vec::new(),
        account_name: Some(OsString::from(&registration.account)),
        account_password: None,
    };
    let service = match manager.open_service(NAME, ServiceAccess::ALL_ACCESS) {
        Ok(service) => {
            service.change_config(&info).map_err(refused(what))?;
            service
        }
        Err(error) if number(&error) == Some(DOES_NOT_EXIST) => {
            manager.create_service(&info, ServiceAccess::ALL_ACCESS).map_err(refused(what))?
        }
        Err(error) => return Err(refused(what)(error)),
    };
    Ok(settings(&service))
}

/// What a service has besides its command; a part that cannot be set is told, with the command that does it.
fn settings(service: &Service) -> Vec<String> {
    let restart =
        |seconds| ServiceAction { action_type: ServiceActionType::Restart, delay: Duration::from_secs(seconds) };
    let failures = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(RESET),
        reboot_msg: None,
        command: None,
        actions: Some(RESTARTS.map(restart).into()),
    };
    let set = [
        ("the description", "description sense-butler \"...\"", service.set_description(DESCRIPTION)),
        ("the delayed start", "config sense-butler start= delayed-auto", service.set_delayed_auto_start(true)),
        (
            "the restart after a failure",
            "failure sense-butler reset= 3600 actions= restart/2000/restart/10000/restart/60000",
            service.update_failure_actions(failures),
        ),
        (
            "the restart after an exit with an error",
            "failureflag sense-butler 1",
            service.set_failure_actions_on_non_crash_failures(true),
        ),
        (
            "the time to stop before the machine goes down",
            "preshutdown sense-butler 20000",
            service.set_preshutdown_timeout(PRESHUTDOWN),
        ),
    ];
    let failed = set.into_iter().filter_map(|(what, by_hand, result)| Some((what, by_hand, result.err()?)));
    failed
        .map(|(what, by_hand, error)| format!("{what} was not set ({}); by hand: sc.exe {by_hand}", words(&error)))
        .collect()
}

/// Stops the service if it runs, and takes it out of the list; waits until it is gone.
///
/// # Errors
/// If there is none, or it does not go.
pub fn unregister() -> Result<(), ServiceError> {
    let what = "removing the service";
    let service = open(ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE, what)?;
    end(&service)?;
    match service.delete() {
        Err(error) if number(&error) != Some(MARKED_FOR_DELETE) => return Err(refused(what)(error)),
        _ => drop(service),
    }
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match open(ServiceAccess::QUERY_STATUS, what) {
            Err(ServiceError::NotInstalled) => return Ok(()),
            // Somebody (the list of services on the screen) holds it open.
            _ => thread::sleep(LOOK),
        }
    }
    let why = "it is marked for removal, and goes when every window that shows services is closed".to_owned();
    Err(ServiceError::Refused { what: what.to_owned(), why })
}

/// Starts the service and waits until it runs.
///
/// # Errors
/// If it does not come up; `why_not` is asked for the reason.
pub fn start(why_not: impl Fn() -> String) -> Result<(), ServiceError> {
    let what = "starting the service";
    let service = open(ServiceAccess::QUERY_STATUS | ServiceAccess::START, what)?;
    match service.start::<&str>(&[]) {
        Err(error) if number(&error) != Some(ALREADY_RUNNING) => return Err(refused(what)(error)),
        _ => {}
    }
    let status = wait_while(&service, ServiceState::StartPending)?;
    match status.current_state {
        ServiceState::Running => Ok(()),
        ServiceState::StartPending => {
            Err(ServiceError::NotRunning(format!("it is still starting after {} seconds", PATIENCE.as_secs())))
        }
        _ => Err(ServiceError::NotRunning(why_not())),
    }
}

/// Stops the service and waits until it has stopped. Answers whether it ran.
///
/// # Errors
/// If it does not stop.
pub fn stop() -> Result<bool, ServiceError> {
    end(&open(ServiceAccess::QUERY_STATUS | ServiceAccess::STOP, "stopping the service")?)
}

fn end(service: &Service) -> Result<bool, ServiceError> {
    let what = "stopping the service";
    let status = service.query_status().map_err(refused(what))?;
    match status.current_state {
        ServiceState::Stopped => return Ok(false),
        // A service that starts takes no orders.
        ServiceState::StartPending => _ = wait_while(service, ServiceState::StartPending)?,
        _ => {}
    }
    match service.stop() {
        Err(error) if number(&error) == Some(NOT_ACTIVE) => return Ok(false),
        // Another order was quicker; what counts is that it stops.
        Err(error) => match wait_while(service, ServiceState::StopPending)?.current_state {
            ServiceState::Stopped => return Ok(true),
            _ => return Err(refused(what)(error)),
        },
        Ok(_) => {}
    }
    match wait_while(service, ServiceState::StopPending)?.current_state {
        ServiceState::Stopped => Ok(true),
        _ => {
            let why = format!("it has not stopped after {} seconds; look at its log", PATIENCE.as_secs());
            Err(ServiceError::Refused { what: what.to_owned(), why })
        }
    }
}

/// Waits as long as it is in this state, or patience lasts.
fn wait_while(service: &Service, state: ServiceState) -> Result<ServiceStatus, ServiceError> {
    let begun = Instant::now();
    loop {
        let status = service.query_status().map_err(refused("asking how the service is"))?;
        if status.current_state != state || begun.elapsed() > PATIENCE {
            return Ok(status);
        }
        thread::sleep(LOOK);
    }
}

/// How it is.
///
/// # Errors
/// If there is none, or Windows does not tell.
pub fn status() -> Result<State, ServiceError> {
    let what = "asking how the service is";
    let service = open(ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG, what)?;
    let status = service.query_status().map_err(refused(what))?;
    let config = service.query_config().map_err(refused(what))?;
    Ok(State {
        phase: match status.current_state {
            ServiceState::StartPending => Phase::Starting,
            ServiceState::Stopped => Phase::Stopped,
            ServiceState::StopPending => Phase::Stopping,
            _ => Phase::Running,
        },
        process: status.process_id,
        exit_code: match status.exit_code {
            ServiceExitCode::Win32(code) | ServiceExitCode::ServiceSpecific(code) => code,
        },
        automatic: config.start_type == ServiceStartType::AutoStart,
        account: config.account_name.unwrap_or_default().to_string_lossy().into_owned(),
        command: config.executable_path.display().to_string(),
    })
}
