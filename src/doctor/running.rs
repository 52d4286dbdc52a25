//! The program that runs with this configuration, if one does, asked at its own REST door.
//!
//! Invariant: what answers there is taken for the program only if it speaks like it (`/readyz` with its parts); with TLS, only if it shows
//! the very certificate of the configured file.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use reqwest::Client;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::Deserialize;

use crate::{
    app::holder,
    config::{Loaded, address, settings::RestSettings},
    net::pem,
};

/// Time for an answer of a program on this machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// A part as `/readyz` shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Whether it does its work.
    pub ready: bool,
    /// Whether the whole is unready without it.
    pub required: bool,
    /// What is wrong.
    #[serde(default)]
    pub detail: String,
}

#[derive(Debug, Deserialize)]
struct Readyz {
    ready: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: String,
    uptime_seconds: u64,
}

/// What the running program says.
#[derive(Debug, Clone)]
pub struct Running {
    /// Where it was asked.
    pub at: String,
    /// Whether it does its work.
    pub ready: bool,
    /// Its parts.
    pub parts: Vec<Part>,
    /// Its version and for how long it has run, seconds; `None`: it did not tell us.
    pub since: Option<(String, u64)>,
    /// `/metrics`; empty: it did not tell us.
    pub metrics: String,
    /// The process, in the words of [`holder`], where the system tells.
    pub process: Option<String>,
}

impl Running {
    /// Looks for it.
    pub async fn find(loaded: &Loaded) -> Option<Self> {
        let rest = &loaded.settings.rest;
        if !rest.enable || rest.port == 0 {
            return None;
        }
        let client = client(rest)?;
        let scheme = if rest.tls.is_some() { "https" } else { "http" };
        for address in near(&rest.host) {
            let at = format!("{scheme}://{}", SocketAddr::new(address, rest.port));
            if let Some(running) = ask(&client, &at, rest.port).await {
                return Some(running);
            }
        }
        None
    }

    /// Has it do something: `POST` without a body. Status and body of the answer; `None`: there was none.
    pub async fn post(&self, loaded: &Loaded, path: &str) -> Option<(u16, String)> {
        let answer = client(&loaded.settings.rest)?.post(format!("{}{path}", self.at)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The number of the process, where the system tells.
    #[cfg(target_os = "linux")]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_deref()?.strip_prefix("process ")?.split(' ').next()?.parse().ok()
    }
}

async fn ask(client: &Client, at: &str, port: u16) -> Option<Running> {
    let readyz: Readyz = serde_json::from_str(&get(client, at, "/readyz").await?).ok()?;
    let status = get(client, at, "/api/v1/status").await.and_then(|text| serde_json::from_str::<Status>(&text).ok());
    Some(Running {
        at: at.to_owned(),
        ready: readyz.ready,
        parts: readyz.parts,
        since: status.map(|status| (status.version, status.uptime_seconds)),
        metrics: get(client, at, "/metrics").await.unwrap_or_default(),
        process: holder::of_tcp(port),
    })
}

async fn get(client: &Client, at: &str, path: &str) -> Option<String> {
    client.get(format!("{at}{path}")).send().await.ok()?.text().await.ok()
}

/// The addresses by which this machine reaches its own door.
fn near(host: &str) -> Vec<IpAddr> {
    let own = |address: IpAddr| match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    address::look_up(host).unwrap_or_default().into_iter().map(own).collect()
}

fn client(rest: &RestSettings) -> Option<Client> {
    let provider = Arc::new(default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().ok()?;
    let tls = match &rest.tls {
        None => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        Some(files) => {
            let own = pem::certificates(&files.cert).ok()?.into_iter().next()?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Own { own, provider })).with_no_client_auth()
        }
    };
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(PATIENCE);
    client.redirect(reqwest::redirect::Policy::none()).build().ok()
}

/// Trusts the program's own certificate and no other, whatever name or age it has.
#[derive(Debug)]
struct Own {
    own: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.own {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
