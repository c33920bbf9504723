use std::process::Command;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::tls::tests::{Authority, Server};
use crate::tls::{connect, Client, Tls};

/// A client with this key is let in by a server that asks for its certificate.
async fn let_in(ca: &Path, certificate_file: &Path, key_file: &str) -> Result<(), String> {
    let servers = Authority::new();
    let own = servers.sign("localhost", 10);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let tcp = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connect");
    let client = Client { certificate_file: certificate_file.to_owned(), key_file: key_file.into() };
    let tls = Tls { ca_file: Some(servers.file()), client: Some(client), ..Tls::default() };
    let server = async {
        let server = Server { wants_clients_of: Some(ca), ..Server::default() };
        tokio::time::timeout(std::time::Duration::from_secs(20), server.accept(&listener, &own)).await
    };
    let client = async {
        let mut stream = connect(&tls, "localhost", "the server", tcp).await.map_err(|e| e.to_string())?;
        stream.write_all(b"in").await.map_err(|e| e.to_string())?;
        std::pin::Pin::new(&mut stream).shutdown().await.map_err(|e| e.to_string())
    };
    let (served, sent) = tokio::join!(server, client);
    sent?;
    assert_eq!(served.expect("in time")?, b"in");
    Ok(())
}

/// OpenSSL's own loader stands in for a token's: the same calls, without a provider.
#[tokio::test(flavor = "current_thread")]
async fn a_key_by_its_uri() {
    let clients = Authority::new();
    let Client { certificate_file, key_file } = clients.sign("device", 10);
    let uri = format!("file:{}", key_file.display());
    let_in(&clients.file(), &certificate_file, &uri).await.expect("let in");
    std::fs::write(&key_file, "").expect("write");
    let_in(&clients.file(), &certificate_file, &uri).await.expect("the key is held");
    forget(Path::new(&uri));
    let error = let_in(&clients.file(), &certificate_file, &uri).await.expect_err("no key");
    assert!(error.contains("cannot use the client key file:"), "{error}");
    // A public key, or another's.
    let other = clients.sign("other", 10).key_file;
    let error = let_in(&clients.file(), &certificate_file, &format!("file:{}", other.display()))
        .await
        .expect_err("another's");
    assert!(error.contains("key values mismatch"), "{error}");
    assert!(hold(Path::new("/nowhere/key.pem")).is_ok(), "a file is nothing to hold");
    assert!(hold(Path::new("file:/nowhere/key.pem")).is_err());
}

#[test]
fn a_pin_is_not_shown() {
    assert_eq!(shown(Path::new("pkcs11:token=dev;object=key?pin-value=1234")), "pkcs11:token=dev;object=key");
    assert_eq!((shown(Path::new("/a?b")), uri(Path::new("/a?b"))), ("/a?b".to_owned(), None));
}

/// In a process of its own: the token's library has its settings from the environment.
#[tokio::test(flavor = "current_thread")]
#[ignore = "run by `a_key_in_a_token`"]
async fn in_a_child() {
    let of = |name| std::env::var(name).expect("set by the parent");
    let (uri, ca, certificate) = (of("TOKEN_URI"), of("TOKEN_CA"), of("TOKEN_CERTIFICATE"));
    hold(Path::new(&uri)).expect("found");
    for _ in 0..3 {
        let_in(Path::new(&ca), Path::new(&certificate), &uri).await.expect("let in");
    }
    let error = hold(Path::new("pkcs11:token=dev;object=none;type=private?pin-value=1234"));
    assert!(!error.expect_err("no such key").contains("1234"));
}

#[test]
fn a_key_in_a_token() {
    let listed = Command::new("openssl").args(["list", "-providers", "-provider", "pkcs11"]).output();
    let library = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(library) = library.filter(|_| listed.is_ok_and(|output| output.status.success())) else {
        println!("skipped: softhsm2 or OpenSSL's provider pkcs11 is not installed");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let settings = format!("directories.tokendir = {}\nobjectstore.backend = file\n", at("tokens").display());
    std::fs::create_dir(at("tokens")).expect("made");
    std::fs::write(at("softhsm2.conf"), settings).expect("write");
    let cnf = format!(
        "openssl_conf = init\n[init]\nproviders = providers\n[providers]\ndefault = software\npkcs11 = token\n\
         [software]\nactivate = 1\n[token]\npkcs11-module-path = {library}\npkcs11-module-quirks = no-deinit\n"
    );
    std::fs::write(at("openssl.cnf"), cnf).expect("write");
    let clients = Authority::new();
    let device = clients.sign("device", 10);
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["60", program]).args(arguments).env("SOFTHSM2_CONF", at("softhsm2.conf"));
        command.env("TOKEN_CA", clients.file());
        if program != "softhsm2-util" {
            // It uses OpenSSL itself.
            command.env("OPENSSL_CONF", at("openssl.cnf"));
        }
        command.env("TOKEN_URI", "pkcs11:token=dev;object=key;type=private?pin-value=1234");
        let output = command.env("TOKEN_CERTIFICATE", &device.certificate_file).output().expect(program);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    run("softhsm2-util", &["--init-token", "--free", "--label", "dev", "--pin", "1234", "--so-pin", "1234"]);
    let key = device.key_file.display().to_string();
    run(
        "softhsm2-util",
        &["--import", &key, "--token", "dev", "--label", "key", "--id", "01", "--pin", "1234"],
    );
    std::fs::remove_file(&device.key_file).expect("only the token has it now");
    let this = std::env::current_exe().expect("a program").display().to_string();
    let said = run(&this, &["--exact", "tls::token::tests::in_a_child", "--ignored", "--nocapture"]);
    assert!(said.contains("1 passed"), "{said}");
}
