//! Certificates, good and bad, and revocation lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIGURATION: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nserial = serial\ncrlnumber = crlnumber\n\
    new_certs_dir = .\ncertificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\ndefault_days = 30\n\
    default_crl_days = 30\npolicy = policy\nunique_subject = no\ncopy_extensions = copy\n[policy]\ncommonName = supplied\n";

/// An authority in a directory of its own.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let authority = Self { directory: tempfile::tempdir().unwrap() };
        let write = |file: &str, text: &str| fs::write(authority.directory.path().join(file), text).unwrap();
        write("ca.cnf", CONFIGURATION);
        write("index.txt", "");
        write("serial", "1000\n");
        write("crlnumber", "1000\n");
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "30",
            "-subj",
            &subject,
        ]);
        authority.revoke(&[]);
        authority
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Its revocation list.
    pub(crate) fn crl(&self) -> PathBuf {
        self.directory.path().join("crl.pem")
    }

    /// A directory with its revocation list under the name OpenSSL looks for.
    pub(crate) fn crl_directory(&self) -> PathBuf {
        let directory = self.directory.path().join("crl");
        fs::create_dir_all(&directory).unwrap();
        let hash = self.openssl(&["crl", "-in", "crl.pem", "-noout", "-hash"]);
        fs::copy(self.crl(), directory.join(format!("{}.r0", hash.trim()))).unwrap();
        directory
    }

    pub(crate) fn sign(&self, name: &str) -> Pair {
        self.sign_until(name, name, None)
    }

    /// One that was good until 2020.
    pub(crate) fn expired(&self, name: &str) -> Pair {
        self.sign_until(&format!("{name}-expired"), name, Some("200101000000Z"))
    }

    fn sign_until(&self, file: &str, name: &str, until: Option<&str>) -> Pair {
        let path = |suffix: &str| self.directory.path().join(format!("{file}.{suffix}"));
        let (key, request, certificate) = (path("key"), path("csr"), path("pem"));
        let text = |path: &Path| path.display().to_string();
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &text(&key),
            "-out",
            &text(&request),
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &format!("subjectAltName=DNS:{name}"),
        ]);
        let (request, out) = (text(&request), text(&certificate));
        let mut arguments =
            vec!["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", &request, "-out", &out];
        if let Some(until) = until {
            arguments.extend(["-startdate", "190101000000Z", "-enddate", until]);
        }
        self.openssl(&arguments);
        Pair { certificate, key }
    }

    /// Takes certificates back and writes the list anew.
    pub(crate) fn revoke(&self, pairs: &[&Pair]) {
        for pair in pairs {
            let certificate = pair.certificate.display().to_string();
            self.openssl(&["ca", "-config", "ca.cnf", "-revoke", &certificate]);
        }
        self.openssl(&["ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"]);
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("openssl").args(arguments).current_dir(self.directory.path()).output().unwrap();
        assert!(
            output.status.success(),
            "openssl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}
