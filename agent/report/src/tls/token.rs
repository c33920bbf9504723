//! Private keys that stay where they are: in a PKCS#11 token, found by a URI (RFC 7512) through a provider of OpenSSL 3.
//!
//! The provider is loaded once and keys are held once found, before the agent gives its rights up: what a token's library needs to open is
//! open then. A key that has failed is looked for again at the next connection.

use std::ffi::{c_char, c_int, c_void, CString};
use std::path::Path;
use std::ptr::{null, null_mut, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::provider::Provider;
use openssl::ssl::SslContextBuilder;

/// `OSSL_STORE_INFO_PKEY` of `openssl/store.h`, since OpenSSL 3.0.
const PKEY: c_int = 4;
/// Schemes of URIs, and the provider that knows what they name. Keys in files are OpenSSL's own matter.
const SCHEMES: [(&str, Option<&str>); 2] = [("pkcs11:", Some("pkcs11")), ("file:", None)];

// Of libcrypto and libssl, which `openssl` links; `openssl-sys` does not declare these. Types that are not looked into are `c_void`.
extern "C" {
    fn OSSL_STORE_open(
        uri: *const c_char,
        ui: *const c_void,
        ui_data: *mut c_void,
        post: *const c_void,
        post_data: *mut c_void,
    ) -> *mut c_void;
    fn OSSL_STORE_expect(store: *mut c_void, kind: c_int) -> c_int;
    fn OSSL_STORE_eof(store: *mut c_void) -> c_int;
    fn OSSL_STORE_load(store: *mut c_void) -> *mut c_void;
    fn OSSL_STORE_close(store: *mut c_void) -> c_int;
    fn OSSL_STORE_INFO_get1_PKEY(info: *const c_void) -> *mut c_void;
    fn OSSL_STORE_INFO_free(info: *mut c_void);
    fn EVP_PKEY_free(key: *mut c_void);
    fn EVP_set_default_properties(context: *mut c_void, query: *const c_char) -> c_int;
    fn SSL_CTX_use_PrivateKey(context: *mut c_void, key: *mut c_void) -> c_int;
}

/// What was loaded, by URI.
static HELD: Mutex<Vec<(String, Arc<Key>)>> = Mutex::new(Vec::new());
/// Loaded once: a provider that goes takes its keys along.
static LOADED: Mutex<Vec<(&str, Provider)>> = Mutex::new(Vec::new());

/// A private key that OpenSSL counts references to.
#[derive(Debug)]
pub(super) struct Key(NonNull<c_void>);

// SAFETY: an EVP_PKEY is not changed here, and OpenSSL locks its reference count.
unsafe impl Send for Key {}
// SAFETY: as above; nothing here gives out more than shared use.
unsafe impl Sync for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the pointer came with a reference of our own, which is given back once.
        unsafe { EVP_PKEY_free(self.0.as_ptr()) };
    }
}

/// The URI that stands in place of a key file, if it is one.
pub(super) fn uri(key_file: &Path) -> Option<&str> {
    key_file.to_str().filter(|text| SCHEMES.iter().any(|(scheme, _)| text.starts_with(scheme)))
}

/// A key's name for error messages, without what follows `?` in a URI: the PIN may stand there.
pub(super) fn shown(key_file: &Path) -> String {
    match uri(key_file) {
        Some(uri) => uri.split('?').next().unwrap_or_default().to_owned(),
        None => key_file.display().to_string(),
    }
}

/// Loads what a key in a token needs, and the key: before rights are given up. Of any other key file nothing is done.
///
/// # Errors
/// In words: what was not found. It is looked for again at each connection.
pub fn hold(key_file: &Path) -> Result<(), String> {
    uri(key_file).map_or(Ok(()), |uri| key(uri).map(drop))
}

/// Takes back that a key is held: the next connection looks for it again.
pub(super) fn forget(key_file: &Path) {
    if let Some(uri) = uri(key_file) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|(held, _)| held != uri);
    }
}

/// Gives a context the key of a URI.
pub(super) fn use_key(context: &mut SslContextBuilder, uri: &str) -> Result<(), String> {
    let key = key(uri)?;
    // SAFETY: both pointers are live for the call; OpenSSL takes a reference to the key of its own.
    let done = unsafe { SSL_CTX_use_PrivateKey(context.as_ptr().cast(), key.0.as_ptr()) };
    if done == 1 {
        Ok(())
    } else {
        Err(reason())
    }
}

fn key(uri: &str) -> Result<Arc<Key>, String> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, key)) = held.iter().find(|(of, _)| of == uri) {
        return Ok(Arc::clone(key));
    }
    if let Some((_, Some(provider))) = SCHEMES.iter().find(|(scheme, _)| uri.starts_with(scheme)) {
        load_provider(provider)?;
    }
    let key = Arc::new(find(uri)?);
    held.push((uri.to_owned(), Arc::clone(&key)));
    Ok(key)
}

fn load_provider(name: &'static str) -> Result<(), String> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.iter().any(|(of, _)| *of == name) {
        return Ok(());
    }
    let fault = |error: ErrorStack| format!("OpenSSL's provider {name} cannot be loaded: {error}");
    // What both can do is the default one's: a token is slow with digests, and its library may need some itself. A key that does
    // not leave its token is used there all the same.
    for name in ["default", name] {
        loaded.push((name, Provider::try_load(None, name, true).map_err(fault)?));
    }
    // SAFETY: null stands for the default context; the text ends in zero and is copied.
    let preferred = unsafe { EVP_set_default_properties(null_mut(), c"?provider=default".as_ptr()) };
    if preferred != 1 {
        return Err(reason());
    }
    Ok(())
}

/// The first private key that a URI leads to.
fn find(uri: &str) -> Result<Key, String> {
    let text = CString::new(uri).map_err(|_| "the URI has a zero byte".to_owned())?;
    // SAFETY: the text is live and ends in zero; the rest may be null (OSSL_STORE_open(3)).
    let store = unsafe { OSSL_STORE_open(text.as_ptr(), null(), null_mut(), null(), null_mut()) };
    if store.is_null() {
        return Err(reason());
    }
    // A loader that cannot be told what is wanted finds other things as well, which are passed over.
    // SAFETY: the store is open until it is closed below; as everywhere from here.
    let _ = unsafe { OSSL_STORE_expect(store, PKEY) };
    let mut found = None;
    // SAFETY: as above.
    while found.is_none() && unsafe { OSSL_STORE_eof(store) } == 0 {
        // SAFETY: as above.
        let info = unsafe { OSSL_STORE_load(store) };
        if info.is_null() {
            break;
        }
        // SAFETY: `info` is live; what it holds may be something else than a private key, and the answer is null then.
        found = NonNull::new(unsafe { OSSL_STORE_INFO_get1_PKEY(info) }).map(Key);
        // SAFETY: ours, and not used any more. The key has a reference of its own.
        unsafe { OSSL_STORE_INFO_free(info) };
    }
    let why = reason();
    // SAFETY: open, and not used any more.
    let _ = unsafe { OSSL_STORE_close(store) };
    found.ok_or(why)
}

/// What OpenSSL has to say, and nothing of the URI, which may hold a PIN.
fn reason() -> String {
    let stack = ErrorStack::get();
    if stack.errors().is_empty() {
        "no private key is found there".to_owned()
    } else {
        stack.to_string()
    }
}

#[cfg(test)]
mod tests;
