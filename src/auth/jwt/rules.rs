//! Rules of an issuer for what its tokens may say.

pub use crate::config::RequiredClaim;

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
            leeway_ms: 30_000,
            require: vec![RequiredClaim::Expires, RequiredClaim::Subject],
            claims_at: "umbel".into(),
            kept: Vec::new(),
            token_bytes_max: 8192,
            life_max_ms: 0,
            has_own_claims: true,
            may_be_nobody: false,
            may_manage: false,
            may_outlive: false,
        }
    }
}
