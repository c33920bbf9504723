//! A certificate the device shows, and how long it lasts.
//!
//! A device whose certificate has ended is not let in any more, and nobody hears of it: so the warning comes while there is time.

use std::path::PathBuf;
use std::time::Duration;

use defender_model::health::{Health, Kind};
use defender_report::tls::days_left;

/// How often to look.
pub(super) const INTERVAL: Duration = Duration::from_secs(3600);
/// Days before the end at which it is said once more.
const SOON: i32 = 7;

/// What was last said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Good,
    Unreadable,
    Warned,
    Soon,
    Expired,
}

/// A certificate file.
#[derive(Debug)]
pub(super) struct Certificate {
    sink: &'static str,
    file: PathBuf,
    /// Days before its end from which on to warn.
    warning: u32,
    said: Said,
}

impl Certificate {
    pub(super) fn new(sink: &'static str, file: PathBuf, warning: u32) -> Self {
        Self { sink, file, warning, said: Said::Good }
    }

    /// News of it, each thing once.
    pub(super) fn look(&mut self) -> Option<Health> {
        let left = days_left(&self.file);
        let state = match &left {
            Err(_) => Said::Unreadable,
            Ok(..=-1) => Said::Expired,
            Ok(days) if i64::from(*days) >= i64::from(self.warning) => Said::Good,
            Ok(days) => {
                if *days <= SOON {
                    Said::Soon
                } else {
                    Said::Warned
                }
            }
        };
        if std::mem::replace(&mut self.said, state) == state {
            return None;
        }
        let file = self.file.display();
        let words = match left {
            Err(error) => format!("the certificate for {} cannot be read: {error}", self.sink),
            Ok(..=-1) => format!("the certificate {file} has expired; the server will refuse this device"),
            Ok(days) if state == Said::Good => format!("the certificate {file} is good for {days} days"),
            Ok(days) => format!("the certificate {file} expires in {days} days; renew it"),
        };
        let kind = if state == Said::Good { Kind::Recovered } else { Kind::Degraded };
        Some(Health::new(kind, format!("sink.{}.certificate", self.sink), words))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// One of `CN=device` that ended with 2019, since the openssl program makes none that has ended at once.
    const EXPIRED: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBCTCBsAIBEDAKBggqhkjOPQQDAjARMQ8wDQYDVQQDDAZkZXZpY2UwHhcNMTkw\n\
        MTAxMDAwMDAwWhcNMjAwMTAxMDAwMDAwWjARMQ8wDQYDVQQDDAZkZXZpY2UwWTAT\n\
        BgcqhkjOPQIBBggqhkjOPQMBBwNCAATxjFFyZIgsXTj4jamGVgdjsvknc2rsm4j9\n\
        wW/n9HQyLwt+5ZyY7i68aoR/AaGkhCoGuO1xXUzSfBn0fReZnX2WMAoGCCqGSM49\n\
        BAMCA0gAMEUCIQD98DsNWCCMyEP9Yy2E+Ki8Tof+mNixBQB3ZgkKZOQeOwIgZZpW\n\
        uvSNnxMmqQv2u85wYyCDB52E6LB9hvXHnb0yLds=\n\
        -----END CERTIFICATE-----";

    /// By the openssl program.
    fn issue(file: &Path, days: &str) {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"])
            .args(["/CN=device", "-days", days, "-keyout", "/dev/null", "-out"])
            .arg(file)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    #[test]
    fn each_stage_is_said_once_and_renewal_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("device.pem");
        let mut certificate = Certificate::new("mqtt", file.clone(), 30);
        let mut look = |words: &str, kind| {
            let health = certificate.look().unwrap();
            assert_eq!((health.kind, health.component.as_str()), (kind, "sink.mqtt.certificate"));
            assert!(health.message.contains(words), "{}", health.message);
            assert_eq!(certificate.look(), None);
        };
        look("cannot be read", Kind::Degraded);
        for days in ["20", "3"] {
            issue(&file, days);
            look("expires in ", Kind::Degraded);
        }
        issue(&file, "60");
        look("is good for ", Kind::Recovered);
        std::fs::write(&file, EXPIRED).unwrap();
        look("has expired", Kind::Degraded);
        issue(&file, "400");
        look("is good", Kind::Recovered);
        let mut good = Certificate::new("mqtt", file, 30);
        assert_eq!(good.look(), None);
    }
}
