use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslAcceptor};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509Builder, X509NameBuilder, X509};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A throw-away authority and the files of what it signed.
pub(crate) struct Authority {
    certificate: X509,
    key: PKey<Private>,
    directory: tempfile::TempDir,
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("the curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn certificate(name: &str, key: &PKey<Private>, days: i64) -> X509Builder {
    let mut subject = X509NameBuilder::new().expect("a name");
    subject.append_entry_by_text("CN", name).expect("a name");
    let subject = subject.build();
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
            as i64;
    let at = |days: i64| Asn1Time::from_unix(now + days * 86_400).expect("a time");
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    let serial = BigNum::from_u32(std::process::id()).and_then(|n| n.to_asn1_integer()).expect("a number");
    builder.set_serial_number(&serial).expect("a number");
    builder.set_subject_name(&subject).expect("a name");
    builder.set_issuer_name(&subject).expect("a name");
    builder.set_pubkey(key).expect("a key");
    builder.set_not_before(&at(-10)).expect("a time");
    builder.set_not_after(&at(days)).expect("a time");
    builder
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("test authority")
    }

    fn named(name: &str) -> Self {
        let key = key();
        let mut builder = certificate(name, &key, 10);
        builder.append_extension(BasicConstraints::new().critical().ca().build().expect("CA")).expect("CA");
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        let authority =
            Self { certificate: builder.build(), key, directory: tempfile::tempdir().expect("a directory") };
        std::fs::write(authority.file(), authority.certificate.to_pem().expect("PEM")).expect("write");
        authority
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for a DNS name (or an address), valid for so many days from now.
    pub(crate) fn sign(&self, name: &str, days: i64) -> Client {
        let key = key();
        let mut builder = certificate(name, &key, days);
        builder.set_issuer_name(self.certificate.subject_name()).expect("a name");
        let mut names = SubjectAlternativeName::new();
        if name.parse::<std::net::IpAddr>().is_ok() {
            names.ip(name);
        } else {
            names.dns(name);
        }
        let names = names.build(&builder.x509v3_context(Some(&self.certificate), None)).expect("names");
        builder.append_extension(names).expect("names");
        builder.sign(&self.key, MessageDigest::sha256()).expect("signed");
        let file = |suffix: &str| self.directory.path().join(format!("{name}{days}.{suffix}"));
        std::fs::write(file("pem"), builder.build().to_pem().expect("PEM")).expect("write");
        std::fs::write(file("key"), key.private_key_to_pem_pkcs8().expect("PEM")).expect("write");
        Client { certificate_file: file("pem"), key_file: file("key") }
    }
}

/// What a server does besides having a certificate.
#[derive(Default)]
pub(super) struct Server<'a> {
    pub(super) wants_clients_of: Option<&'a Path>,
    pub(super) oldest_only: bool,
}

impl Server<'_> {
    /// Accepts one connection and gives what it read of it.
    pub(super) async fn accept(&self, listener: &TcpListener, own: &Client) -> Result<Vec<u8>, String> {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("a server");
        builder.set_certificate_chain_file(&own.certificate_file).expect("a certificate");
        builder.set_private_key_file(&own.key_file, SslFiletype::PEM).expect("a key");
        if let Some(ca) = self.wants_clients_of {
            builder.set_ca_file(ca).expect("an authority");
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        if self.oldest_only {
            builder.set_security_level(0);
            builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
            builder.set_min_proto_version(Some(SslVersion::TLS1)).expect("a version");
            builder.set_max_proto_version(Some(SslVersion::TLS1_1)).expect("a version");
        }
        let acceptor = builder.build();
        let (tcp, _) = listener.accept().await.map_err(|e| e.to_string())?;
        let ssl = Ssl::new(acceptor.context()).map_err(|e| e.to_string())?;
        let mut stream = SslStream::new(ssl, tcp).map_err(|e| e.to_string())?;
        Pin::new(&mut stream).accept().await.map_err(|e| e.to_string())?;
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.map_err(|e| e.to_string())?;
        Ok(read)
    }

    /// One connection from us: what the server read, or why we refused (or were refused).
    async fn talk(&self, own: &Client, host: &str, tls: &Tls) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let client = async {
            let tcp = TcpStream::connect(address).await.expect("connected");
            let mut stream = connect(tls, host, "collector:6514", tcp).await.map_err(|e| e.to_string())?;
            stream.write_all(b"hello").await.map_err(|e| e.to_string())?;
            stream.shutdown().await.map_err(|e| e.to_string())
        };
        let both = async { tokio::join!(self.accept(&listener, own), client) };
        let (server, client) = tokio::time::timeout(PATIENCE * 2, both).await.expect("in time");
        client?;
        server
    }
}

fn trusting(authority: &Authority) -> Tls {
    Tls { ca_file: Some(authority.file()), ..Tls::default() }
}

#[tokio::test(flavor = "current_thread")]
async fn the_right_server_by_name_and_by_address() {
    let authority = Authority::new();
    let tls = trusting(&authority);
    let named = authority.sign("localhost", 10);
    assert_eq!(Server::default().talk(&named, "localhost", &tls).await.as_deref(), Ok(&b"hello"[..]));
    let tls_named = Tls { server_name: Some("localhost".to_owned()), ..tls.clone() };
    assert_eq!(Server::default().talk(&named, "127.0.0.1", &tls_named).await.as_deref(), Ok(&b"hello"[..]));
    let addressed = authority.sign("127.0.0.1", 10);
    assert_eq!(Server::default().talk(&addressed, "127.0.0.1", &tls).await.as_deref(), Ok(&b"hello"[..]));
}

#[tokio::test(flavor = "current_thread")]
async fn the_wrong_server_is_refused_and_the_reason_named() {
    let (authority, other) = (Authority::new(), Authority::named("another authority"));
    let tls = trusting(&authority);
    let refusal = |result: Result<Vec<u8>, String>| result.expect_err("a refusal");
    let wrong_ca = refusal(Server::default().talk(&other.sign("localhost", 10), "localhost", &tls).await);
    assert!(
        wrong_ca.contains("certificate is refused: unable to get local issuer certificate"),
        "{wrong_ca}"
    );
    let namesake =
        refusal(Server::default().talk(&Authority::new().sign("localhost", 10), "localhost", &tls).await);
    assert!(namesake.contains("refused: certificate signature failure"), "{namesake}");
    let wrong_name =
        refusal(Server::default().talk(&authority.sign("elsewhere", 10), "localhost", &tls).await);
    assert!(
        wrong_name.contains("refused: hostname mismatch") && wrong_name.contains("expected name: localhost"),
        "{wrong_name}"
    );
    let wrong_address =
        refusal(Server::default().talk(&authority.sign("localhost", 10), "127.0.0.1", &tls).await);
    assert!(wrong_address.contains("refused: IP address mismatch"), "{wrong_address}");
    let expired = refusal(Server::default().talk(&authority.sign("localhost", -1), "localhost", &tls).await);
    assert!(expired.contains("refused: certificate has expired"), "{expired}");
    // Authorities of the system do not count beside the configured one, and without any the test's is unknown.
    let untrusting = Tls::default();
    let unknown =
        refusal(Server::default().talk(&authority.sign("localhost", 10), "localhost", &untrusting).await);
    assert!(unknown.contains("unable to get local issuer certificate"), "{unknown}");
    let old = Server { oldest_only: true, ..Server::default() };
    let old = refusal(old.talk(&authority.sign("localhost", 10), "localhost", &tls).await);
    assert!(old.contains("handshake failed"), "{old}");
    assert!(wrong_ca.starts_with("no TLS with collector:6514: "), "{wrong_ca}");
}

#[tokio::test(flavor = "current_thread")]
async fn client_certificates() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = authority.sign("localhost", 10);
    let ca = clients.file();
    let server = Server { wants_clients_of: Some(&ca), ..Server::default() };
    let tls = trusting(&authority);
    let with = Tls { client: Some(clients.sign("device", 10)), ..tls.clone() };
    assert_eq!(server.talk(&own, "localhost", &with).await.as_deref(), Ok(&b"hello"[..]));
    let none = server.talk(&own, "localhost", &tls).await.expect_err("a refusal");
    assert!(none.contains("refuses the client") && none.contains("certificate required"), "{none}");
    let stranger = Tls { client: Some(authority.sign("device", 10)), ..tls.clone() };
    let stranger = server.talk(&own, "localhost", &stranger).await.expect_err("a refusal");
    assert!(stranger.contains("refuses the client"), "{stranger}");
    let mixed = Client { key_file: clients.sign("other", 10).key_file, ..clients.sign("device", 10) };
    let mixed = server.talk(&own, "localhost", &Tls { client: Some(mixed), ..tls }).await;
    assert!(mixed.expect_err("a refusal").contains("key"), "a key that does not belong to the certificate");
}

#[tokio::test(flavor = "current_thread")]
async fn files_are_read_anew_and_missing_ones_named() {
    let (first, second) = (Authority::new(), Authority::new());
    let tls = trusting(&first);
    let own = second.sign("localhost", 10);
    assert!(Server::default().talk(&own, "localhost", &tls).await.is_err());
    std::fs::copy(second.file(), first.file()).expect("replaced");
    assert!(Server::default().talk(&own, "localhost", &tls).await.is_ok());
    std::fs::remove_file(first.file()).expect("removed");
    let missing = Server::default().talk(&own, "localhost", &tls).await.expect_err("no authority");
    assert!(missing.contains("cannot use the CA file") && missing.contains("ca.pem"), "{missing}");
}
