//! TLS by OpenSSL: version 1.2 at least, the server's certificate and name always verified.

mod token;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509VerifyResult, X509};
pub use token::hold;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::error::Error;
use crate::stream::PATIENCE;

/// How long a server may take to refuse a client after the handshake.
const REFUSAL: Duration = Duration::from_millis(250);

/// What a TLS connection needs. Files are read at each connection, so a certificate replaced on disk is used from the next one on.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates of the authorities to trust, PEM; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// Certificates that those authorities have revoked, PEM. The server's is looked for there; a list that is missing or out of date
    /// refuses every server.
    pub crl_file: Option<PathBuf>,
    /// Name the server's certificate must have, where it is not the host's in the address.
    pub server_name: Option<String>,
    /// The client's own certificate (with its chain) and private key, PEM.
    pub client: Option<Client>,
}

/// The client's own certificate.
#[derive(Debug, Clone)]
pub struct Client {
    /// Certificate, and those between it and the authority, PEM.
    pub certificate_file: PathBuf,
    /// Private key, PEM, not encrypted; or the URI of one in a PKCS#11 token, `pkcs11:...`.
    pub key_file: PathBuf,
}

/// Whole days until a certificate expires, negative when it has, by the wall clock.
///
/// # Errors
/// In words, with the file's name: it cannot be read, or is not a certificate.
pub fn days_left(certificate_file: &Path) -> Result<i32, String> {
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate_file.display());
    let pem = std::fs::read(certificate_file).map_err(|e| fault(&e))?;
    let certificate = X509::from_pem(&pem).map_err(|e| fault(&e))?;
    let left = Asn1Time::days_from_now(0).and_then(|now| now.diff(certificate.not_after()));
    let left = left.map_err(|e| fault(&e))?;
    // Days and seconds have the same sign. Expired an hour ago is not "0 days left".
    Ok(if left.secs < 0 { left.days - 1 } else { left.days })
}

/// Why a server may refuse us, as far as we can see ourselves.
fn own_fault(tls: &Tls) -> &'static str {
    match tls.client.as_ref().map(|client| days_left(&client.certificate_file)) {
        None => " (does it want a client certificate?)",
        Some(Ok(..=-1)) => " (our certificate has expired)",
        Some(_) => " (does it not know our certificate's authority, or has it revoked it?)",
    }
}

/// Makes a TLS connection of a TCP connection.
pub(crate) async fn connect(
    tls: &Tls,
    host: &str,
    target: &str,
    tcp: TcpStream,
) -> Result<SslStream<TcpStream>, Error> {
    let fail = |detail: String| Error::Tls { target: target.to_owned(), detail };
    let name = tls.server_name.as_deref().unwrap_or(host);
    let ssl = configure(tls).and_then(|c| {
        c.configure().and_then(|c| c.into_ssl(name)).map_err(|e| format!("cannot set up a session: {e}"))
    });
    let mut stream = ssl
        .and_then(|ssl| SslStream::new(ssl, tcp).map_err(|e| format!("cannot set up a session: {e}")))
        .map_err(fail)?;
    match tokio::time::timeout(PATIENCE, Pin::new(&mut stream).connect()).await {
        Err(_) => {
            Err(Error::Timeout { target: target.to_owned(), action: "agree on TLS with", after: PATIENCE })
        }
        Ok(Ok(())) => refused_afterwards(stream, tls, target).await,
        Ok(Err(error)) => {
            if let Some(client) = &tls.client {
                // A token may have been taken out and put in again.
                token::forget(&client.key_file);
            }
            let verdict = stream.ssl().verify_result();
            let detail = if verdict == X509VerifyResult::OK {
                // An alert of the server's is about us.
                let fault = if error.to_string().contains("alert") { own_fault(tls) } else { "" };
                format!("the handshake failed: {error}{fault}")
            } else {
                format!(
                    "the server's certificate is refused: {} (expected name: {name})",
                    verdict.error_string()
                )
            };
            Err(fail(detail))
        }
    }
}

/// In TLS 1.3 a server refuses the client's certificate, or its absence, after the client has finished its part. What is sent before
/// that arrives would be lost, so it is waited for.
async fn refused_afterwards(
    mut stream: SslStream<TcpStream>,
    tls: &Tls,
    target: &str,
) -> Result<SslStream<TcpStream>, Error> {
    if stream.ssl().version2() != Some(SslVersion::TLS1_3) {
        return Ok(stream);
    }
    let refused = match tokio::time::timeout(REFUSAL, Pin::new(&mut stream).peek(&mut [0])).await {
        // Silence, or data already.
        Err(_) | Ok(Ok(1..)) => return Ok(stream),
        Ok(Ok(0)) => "it closed the connection".to_owned(),
        Ok(Err(error)) => error.to_string(),
    };
    let detail = format!("the server refuses the client after the handshake: {refused}{}", own_fault(tls));
    Err(Error::Tls { target: target.to_owned(), detail })
}

fn configure(tls: &Tls) -> Result<SslConnector, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())
        .map_err(|e| format!("OpenSSL cannot be set up: {e}"))?;
    let floor = builder.set_min_proto_version(Some(SslVersion::TLS1_2));
    floor.map_err(|e| format!("OpenSSL does not know TLS 1.2: {e}"))?;
    builder.set_verify(SslVerifyMode::PEER);
    if let Some(path) = &tls.ca_file {
        // The builder starts with the system's authorities; a store of its own has only these.
        let store = X509StoreBuilder::new().map_err(|e| e.to_string())?.build();
        builder.set_cert_store(store);
        builder.set_ca_file(path).map_err(|e| format!("cannot use the CA file {}: {e}", path.display()))?;
    }
    if let Some(path) = &tls.crl_file {
        let store = builder.cert_store_mut();
        let loaded = store
            .add_lookup(X509Lookup::file())
            .and_then(|lookup| lookup.load_crl_file(path, SslFiletype::PEM).map(drop))
            .and_then(|()| builder.cert_store_mut().set_flags(X509VerifyFlags::CRL_CHECK));
        loaded.map_err(|e| format!("cannot use the revocation list {}: {e}", path.display()))?;
    }
    if let Some(client) = &tls.client {
        let (certificate, key) = (&client.certificate_file, &client.key_file);
        builder
            .set_certificate_chain_file(certificate)
            .map_err(|e| format!("cannot use the client certificate {}: {e}", certificate.display()))?;
        let used = match token::uri(key) {
            Some(uri) => token::use_key(&mut builder, uri),
            None => builder.set_private_key_file(key, SslFiletype::PEM).map_err(|e| e.to_string()),
        };
        used.map_err(|e| format!("cannot use the client key {}: {e}", token::shown(key)))?;
        builder.check_private_key().map_err(|e| {
            format!(
                "client key {} and certificate {} do not belong together: {e}",
                token::shown(key),
                certificate.display()
            )
        })?;
    }
    Ok(builder.build())
}

#[cfg(test)]
pub(crate) mod tests;
