//! Boolean expressions over questions: what a condition and its searches come down to.

use crate::predicate::Question;

/// A boolean expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Ask(Question),
    Not(Box<Expr>),
    /// All of them; true when there are none.
    All(Vec<Expr>),
    /// At least one of them; false when there are none.
    Any(Vec<Expr>),
    /// At least so many of them.
    AtLeast(usize, Vec<Expr>),
}

impl Expr {
    /// All of these, without needless nesting.
    pub(crate) fn all(mut parts: Vec<Self>) -> Self {
        match (parts.len(), parts.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                parts.push(last);
                Self::All(parts)
            }
            (_, None) => Self::All(parts),
        }
    }

    /// Any of these, without needless nesting.
    pub(crate) fn any(mut parts: Vec<Self>) -> Self {
        match (parts.len(), parts.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                parts.push(last);
                Self::Any(parts)
            }
            (_, None) => Self::Any(parts),
        }
    }

    pub(crate) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Questions in it, each as often as it is asked.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Ask(_) => 1,
            Self::Not(inner) => inner.size(),
            Self::All(parts) | Self::Any(parts) | Self::AtLeast(_, parts) => {
                parts.iter().map(Self::size).sum()
            }
        }
    }
}
