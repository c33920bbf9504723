//! Certificates and keys by the system's OpenSSL, as plain facts. A build without it knows none and says so.

use super::bytes::find;

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Common name, or the best there is.
    pub(crate) subject: String,
    /// End of its validity, in seconds since 1970.
    pub(crate) not_after: i64,
    /// The same as text.
    pub(crate) shown_until: String,
    pub(crate) key_bits: u32,
    /// The key is on an elliptic curve, where fewer bits do.
    pub(crate) curve: bool,
    /// The long name of the signature's algorithm, in lower case.
    pub(crate) signature: String,
    /// Subject and issuer are the same.
    pub(crate) self_signed: bool,
}

/// Content that looks like a certificate: PEM, or the start of a DER sequence.
fn is_pem(content: &[u8]) -> bool {
    find(content, b"-----BEGIN CERTIFICATE-----").is_some()
}

#[cfg(feature = "x509")]
mod library {
    use std::cmp::Ordering;

    use openssl::asn1::Asn1Time;
    use openssl::error::ErrorStack;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::x509::{X509Ref, X509};

    use super::{is_pem, Certificate};

    /// Most certificates of one file.
    const MAX: usize = 1000;

    /// The certificates of a file, PEM or DER; what is none is passed over.
    ///
    /// # Errors
    /// A certificate has a key or a time that the library does not read.
    pub(crate) fn certificates(content: &[u8]) -> Result<Vec<Certificate>, String> {
        let found = match is_pem(content) {
            true => X509::stack_from_pem(content).unwrap_or_default(),
            false => X509::from_der(content).into_iter().collect(),
        };
        found
            .iter()
            .take(MAX)
            .map(|certificate| facts(certificate).map_err(|error| error.to_string()))
            .collect()
    }

    fn facts(certificate: &X509Ref) -> Result<Certificate, ErrorStack> {
        let name = certificate.subject_name();
        let names = [Nid::COMMONNAME, Nid::ORGANIZATIONALUNITNAME, Nid::ORGANIZATIONNAME];
        let subject = names.iter().find_map(|nid| name.entries_by_nid(*nid).next());
        // By days and seconds: a time_t of 32 bits ends in 2038.
        let validity = Asn1Time::from_str("19700101000000Z")?.diff(certificate.not_after())?;
        let key = certificate.public_key()?;
        let algorithm = certificate.signature_algorithm().object().nid();
        Ok(Certificate {
            subject: subject.map_or_else(
                || "no name".to_owned(),
                |entry| defender_model::text::from_bytes(entry.data().as_slice()),
            ),
            not_after: i64::from(validity.days) * 86_400 + i64::from(validity.secs),
            shown_until: certificate.not_after().to_string(),
            key_bits: key.bits(),
            curve: key.ec_key().is_ok() || key.bits() < 512,
            signature: algorithm.long_name().unwrap_or("an unknown algorithm").to_ascii_lowercase(),
            self_signed: name.try_cmp(certificate.issuer_name()).is_ok_and(|order| order == Ordering::Equal),
        })
    }

    /// Length of a private RSA key; `None` for other kinds and for formats the library does not read.
    pub(crate) fn rsa_bits(content: &[u8]) -> Option<u32> {
        // An encrypted key would make the library ask a person; it gets no answer instead.
        let key = PKey::private_key_from_pem_callback(content, |_| Ok(0)).ok()?;
        key.rsa().ok().map(|_| key.bits())
    }
}

#[cfg(not(feature = "x509"))]
mod library {
    use super::{is_pem, Certificate};

    pub(crate) fn certificates(content: &[u8]) -> Result<Vec<Certificate>, String> {
        match is_pem(content) || content.starts_with(&[0x30, 0x82]) {
            true => Err("this build has no OpenSSL (feature `x509`) to read certificates with".to_owned()),
            false => Ok(Vec::new()),
        }
    }

    pub(crate) fn rsa_bits(_content: &[u8]) -> Option<u32> {
        None
    }
}

pub(crate) use library::{certificates, rsa_bits};
