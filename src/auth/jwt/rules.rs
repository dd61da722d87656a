//! Rules of an issuer for what its tokens may say.

/// Leeway for clocks that differ, where none is set.
pub const LEEWAY_MS: u64 = 30_000;

/// Bytes of a token, where no limit is set.
pub const TOKEN_BYTES_MAX: usize = 8192;

/// Rules of one `[[jwt]]`. Its settings of the same names say more.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `iss` that tokens must have. None: whatever no other issuer is called.
    pub issuer: Option<Box<str>>,
    /// Names of the server, of which `aud` must have one. Empty: `aud` must be absent.
    pub audience: Vec<Box<str>>,
    /// `typ` that the header must have.
    pub token_type: Option<Box<str>>,
    /// Milliseconds by which clocks may differ.
    pub leeway_ms: u64,
    /// Claims that must be there.
    pub require: Vec<RequiredClaim>,
    /// Name of the claim that the server's own stand in.
    pub claims_at: Box<str>,
    /// Names of claims that are kept for grants.
    pub kept: Vec<Box<str>>,
    /// Bytes of a token.
    pub token_bytes_max: usize,
    /// Milliseconds that a token may live, from `iat` to `exp`. 0: any.
    pub life_max_ms: u64,
    /// Whether the server's own claims are read at all. Tokens of other servers' clients have none.
    pub has_own_claims: bool,
    /// Whether an empty `sub` is nobody's, as if it were absent.
    pub may_be_nobody: bool,
    /// Whether `manage` and `observe` are taken.
    pub may_manage: bool,
    /// Whether `connection_expires_at` is taken.
    pub may_outlive: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            issuer: None,
            audience: Vec::new(),
            token_type: None,
            leeway_ms: LEEWAY_MS,
            require: vec![RequiredClaim::Expires, RequiredClaim::Subject],
            claims_at: "umbel".into(),
            kept: Vec::new(),
            token_bytes_max: TOKEN_BYTES_MAX,
            life_max_ms: 0,
            has_own_claims: true,
            may_be_nobody: false,
            may_manage: false,
            may_outlive: false,
        }
    }
}

/// Claim that can be required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredClaim {
    /// `exp`.
    Expires,
    /// `sub`.
    Subject,
    /// `iat`.
    IssuedAt,
    /// `nbf`.
    NotBefore,
    /// `jti`.
    TokenId,
}

impl RequiredClaim {
    /// All of them.
    pub const ALL: [RequiredClaim; 5] = [
        RequiredClaim::Expires,
        RequiredClaim::Subject,
        RequiredClaim::IssuedAt,
        RequiredClaim::NotBefore,
        RequiredClaim::TokenId,
    ];

    /// The claim of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<RequiredClaim> {
        RequiredClaim::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Name in tokens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RequiredClaim::Expires => "exp",
            RequiredClaim::Subject => "sub",
            RequiredClaim::IssuedAt => "iat",
            RequiredClaim::NotBefore => "nbf",
            RequiredClaim::TokenId => "jti",
        }
    }
}
