//! `tls` of a listener: its own certificate, and those of its clients.

use super::Context;
use crate::{
    broker::settings::{CertificateName, ClientCertificates, Listener, ListenerTls},
    config::{butler::rest::must_exist, walk::Section},
};

/// The outer `None`: an error was reported.
#[expect(clippy::option_option, reason = "\"no TLS\" and \"TLS that cannot be used\" are two answers")]
pub(super) fn decode(listener: &Section<'_>, no_users: bool, cx: &Context<'_>) -> Option<Option<ListenerTls>> {
    let tls = listener.section("tls");
    let (cert, key) = (tls.path("cert", &cx.base), tls.path("key", &cx.base));
    let clients = clients(&tls, no_users, cx);
    if !tls.is_written() {
        return Some(None);
    }
    must_exist(&tls, "cert", cert.as_deref());
    must_exist(&tls, "key", key.as_deref());
    tls.finish();
    Some(Some(ListenerTls { cert: cert?, key: key?, clients: clients? }))
}

#[expect(clippy::option_option, reason = "as above")]
fn clients(tls: &Section<'_>, no_users: bool, cx: &Context<'_>) -> Option<Option<ClientCertificates>> {
    let ca = tls.path("client_ca", &cx.base);
    let required = tls.choice("client_cert", &["optional", "required"]).is_none_or(|word| word == 1);
    let name = match tls.choice("client_name", &["cn", "san", "none"]) {
        Some(1) => CertificateName::AlternativeName,
        Some(2) => CertificateName::Nobody,
        _ => CertificateName::CommonName,
    };
    if !tls.has("client_ca") {
        for key in ["client_cert", "client_name"].into_iter().filter(|key| tls.has(key)) {
            let message =
                "it needs `client_ca`: the PEM file of the authority that signs the certificates of the clients";
            tls.report().error(&tls.path_of(key), message);
        }
        return Some(None);
    }
    must_exist(tls, "client_ca", ca.as_deref());
    if no_users && name != CertificateName::Nobody {
        let message = "certificates name users here, and there are no [[users]]: every certificate would be refused. Add a \
                       user for each (`name` alone is enough), or client_name = \"none\" if a certificate shall only open the door";
        tls.report().error(&tls.path_of("client_ca"), message);
    }
    Some(Some(ClientCertificates { ca: ca?, required, name }))
}

fn clients_of(listener: &Listener) -> Option<&ClientCertificates> {
    listener.tls.as_ref()?.clients.as_ref()
}

/// Whether certificates name users at a listener.
pub(super) fn names_users(listener: &Listener) -> bool {
    clients_of(listener).is_some_and(|clients| clients.name != CertificateName::Nobody)
}

/// Whether nobody gets to a listener without a certificate.
pub(super) fn requires_certificates(tls: Option<&ListenerTls>) -> bool {
    tls.and_then(|tls| tls.clients.as_ref()).is_some_and(|clients| clients.required)
}

/// Whether a certificate alone opens a listener, for whoever has one.
pub(super) fn opens_to_certificates(tls: Option<&ListenerTls>) -> bool {
    let nobody = |clients: &ClientCertificates| clients.required && clients.name == CertificateName::Nobody;
    tls.and_then(|tls| tls.clients.as_ref()).is_some_and(nobody)
}
