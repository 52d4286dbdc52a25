//! The process that Windows' service manager starts: it hands its thread to a job, and the manager's orders to a [`Controller`].
//!
//! Invariants: the handler only changes the controller's state; while something is pending the manager hears of it every second; the last report
//! is made when the job has ended. About the library: it frees the handler when a stop order has been answered, so that a further
//! order would reach freed memory. The manager sends none, because the report of `Stopping`, which takes no orders, is made before the first is answered.

use std::{
    ffi::OsString,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
};

use parking_lot::Mutex;
use windows_service::{
    define_windows_service,
    service::{ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType},
    service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle},
    service_dispatcher,
};

use crate::service::{
    NAME, ServiceError,
    control::{Answer, Control, Controller, Phase, Report, TICK},
};

/// What the process is to do; answers the exit code.
type Job = Box<dyn FnOnce(Controller) -> u8 + Send>;

/// The manager calls back a plain function; this is where it finds what to do, and leaves what came of it.
static JOB: Mutex<Option<Job>> = Mutex::new(None);
static EXIT: Mutex<u8> = Mutex::new(1);

define_windows_service!(called_by_windows, service_main);

/// Does the job as a service; returns its exit code when the service has stopped.
///
/// # Errors
/// If this process was not started by the service manager.
pub fn run(job: impl FnOnce(Controller) -> u8 + Send + 'static) -> Result<u8, ServiceError> {
    *JOB.lock() = Some(Box::new(job));
    service_dispatcher::start(NAME, called_by_windows).map_err(|error| ServiceError::Refused {
        what: "`service run` is what Windows calls when the service starts; at a command line it is `sense-butler run`"
            .to_owned(),
        why: super::manage::words(&error),
    })?;
    Ok(*EXIT.lock())
}

fn service_main(_arguments: Vec<OsString>) {
    let Some(job) = JOB.lock().take() else { return };
    let controller = Controller::new();
    let ordered = controller.clone();
    let handler = move |control| match ordered.control(order(&control)) {
        Answer::Done => ServiceControlHandlerResult::NoError,
        Answer::NotOffered => ServiceControlHandlerResult::NotImplemented,
    };
    // Without it nobody can be told anything, not even that.
    let Ok(handle) = service_control_handler::register(NAME, handler) else { return };
    controller.attach(move |report| tell(handle, report));
    let (working, done) = sync_channel::<()>(1);
    let ticking = controller.clone();
    let ticks = thread::Builder::new().name("service manager".to_owned()).spawn(move || {
        while done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            ticking.tick();
        }
    });
    let code = job(controller.clone());
    *EXIT.lock() = code;
    drop(working);
    if let Ok(ticks) = ticks {
        // It ends at once; a panic in it was logged.
        drop(ticks.join());
    }
    controller.stopped(code);
}

const fn order(control: &ServiceControl) -> Control {
    match control {
        ServiceControl::Stop => Control::Stop,
        ServiceControl::Shutdown => Control::Shutdown,
        ServiceControl::Preshutdown => Control::Preshutdown,
        ServiceControl::Interrogate => Control::Interrogate,
        _ => Control::Other,
    }
}

fn tell(handle: ServiceStatusHandle, report: &Report) {
    let current_state = match report.phase {
        Phase::Starting => ServiceState::StartPending,
        Phase::Running => ServiceState::Running,
        Phase::Stopping => ServiceState::StopPending,
        Phase::Stopped => ServiceState::Stopped,
    };
    let taken = ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN;
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state,
        controls_accepted: if report.accepts { taken } else { ServiceControlAccept::empty() },
        exit_code: match report.exit_code {
            0 => ServiceExitCode::NO_ERROR,
            code => ServiceExitCode::ServiceSpecific(u32::from(code)),
        },
        checkpoint: report.checkpoint,
        wait_hint: report.wait_hint,
        process_id: None,
    };
    if let Err(error) = handle.set_service_status(status) {
        tracing::warn!(
            code = "windows_not_told",
            "the service manager was not told ({:?}), and may show the service wrongly until the next word: {}",
            report.phase,
            super::manage::words(&error)
        );
    }
}
