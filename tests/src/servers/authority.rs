//! Certificates, made by the openssl program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(60);

/// An authority with its files in a directory.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one in `directory`, which is made.
    ///
    /// # Errors
    /// When the directory cannot be made or openssl fails.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(directory).map_err(Error::io(format!("cannot create {}", directory.display())))?;
        let this = Self { directory: directory.to_owned() };
        let subject = format!("/CN={name}");
        this.openssl(&[
            &["req", "-x509", "-days", "30", "-keyout", "ca.key", "-out", "ca.pem", "-subj", &subject][..],
            &NEW_KEY,
        ])?;
        Ok(this)
    }

    /// Its own certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A key and a certificate with these names; the first is the subject's and the files'.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn sign(&self, names: &[&str]) -> Result<Pair> {
        let name = names.first().copied().unwrap_or("nobody");
        let file = |suffix: &str| format!("{name}.{suffix}");
        let (key, request) = (file("key"), file("csr"));
        let alternatives: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={}", alternatives.join(",")));
        self.openssl(&[
            &["req", "-new", "-keyout", &key, "-out", &request, "-subj", &subject, "-addext", &names][..],
            &NEW_KEY,
        ])?;
        let certificate = self.certify(Path::new(&request), &file("pem"))?;
        Ok(Pair { certificate, key: self.directory.join(key) })
    }

    /// A certificate, in a file of its directory, for a request that somebody else made.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn certify(&self, request: &Path, certificate: &str) -> Result<PathBuf> {
        let request = request.display().to_string();
        self.openssl(&[
            &["x509", "-req", "-in", &request, "-out", certificate, "-days", "30"][..],
            &["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-copy_extensions", "copyall"],
        ])?;
        Ok(self.directory.join(certificate))
    }

    fn openssl(&self, arguments: &[&[&str]]) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.concat()).current_dir(&self.directory);
        command::run(&mut openssl, PATIENCE).map(drop)
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
