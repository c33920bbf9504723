//! Local accounts: users, groups, and who belongs to which.

use crate::process::Actor;

/// What became of an account or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountChange {
    /// A user is new.
    UserCreated,
    /// A user is gone.
    UserDeleted,
    /// User id, primary group, home or shell is another.
    UserChanged,
    /// The password is another, or is needed no more.
    PasswordChanged,
    /// The password no longer opens the account.
    UserLocked,
    /// It does again.
    UserUnlocked,
    /// A group is new.
    GroupCreated,
    /// A group is gone.
    GroupDeleted,
    /// A user belongs to a group since.
    MemberAdded,
    /// A user no longer does.
    MemberRemoved,
}

impl AccountChange {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::UserCreated,
        Self::UserDeleted,
        Self::UserChanged,
        Self::PasswordChanged,
        Self::UserLocked,
        Self::UserUnlocked,
        Self::GroupCreated,
        Self::GroupDeleted,
        Self::MemberAdded,
        Self::MemberRemoved,
    ];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserCreated => "user_created",
            Self::UserDeleted => "user_deleted",
            Self::UserChanged => "user_changed",
            Self::PasswordChanged => "password_changed",
            Self::UserLocked => "user_locked",
            Self::UserUnlocked => "user_unlocked",
            Self::GroupCreated => "group_created",
            Self::GroupDeleted => "group_deleted",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
        }
    }

    /// The reverse of [`AccountChange::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }

    /// It is about a group, not only a user.
    #[must_use]
    pub const fn concerns_group(self) -> bool {
        matches!(self, Self::GroupCreated | Self::GroupDeleted | Self::MemberAdded | Self::MemberRemoved)
    }

    /// It is about the password alone.
    #[must_use]
    pub const fn concerns_password(self) -> bool {
        matches!(self, Self::PasswordChanged | Self::UserLocked | Self::UserUnlocked)
    }
}

/// A change of a local account or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountActivity {
    /// What became of it.
    pub change: AccountChange,
    /// The user; empty for a group that came or went.
    pub user: String,
    /// The user's id, after the change where there is one.
    pub uid: Option<u32>,
    /// The group that it is about; empty of users.
    pub group: String,
    /// The group's id; of a user its primary group.
    pub gid: Option<u32>,
    /// What the user is given at login; empty where it is not about a user.
    pub shell: String,
    /// In words: `uid 1000 -> 0`. Never anything of a password.
    pub detail: String,
    /// The process that changed the file, where that is known.
    pub process: Option<Actor>,
}
