//! What is wrong with a policy or an exception, said so that its author can mend it.

use defender_model::text::printable;

/// One mistake in a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Name of the file.
    pub file: String,
    /// Line in it, from 1.
    pub line: usize,
    /// Id of the check, where it got that far.
    pub check: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl core::fmt::Display for PolicyError {
    /// `file:line: check "id": message`. Text from the file is escaped for terminals.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}:{}: ", printable(&self.file), self.line)?;
        if let Some(check) = &self.check {
            write!(f, "check \"{}\": ", printable(check))?;
        }
        f.write_str(&printable(&self.message))
    }
}

impl std::error::Error for PolicyError {}
