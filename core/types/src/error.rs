use std::fmt;

macro_rules! error_codes {
    ($($variant:ident => $slug:literal,)*) => {
        /// A stable slug for each way in which a request, a definition or a file can be wrong.
        ///
        /// Programs match on the slug; people read the message and the hint. A slug never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($variant,)*
        }

        impl ErrorCode {
            pub fn slug(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $slug,)*
                }
            }

            /// The code of a slug; none for a slug that is not the engine's.
            pub fn of_slug(slug: &str) -> Option<Self> {
                match slug {
                    $($slug => Some(ErrorCode::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    // the caller's input
    InvalidArgument => "invalid_argument",
    InvalidJson => "invalid_json",
    InvalidTensor => "invalid_tensor",
    TypeMismatch => "type_mismatch",
    LengthMismatch => "length_mismatch",
    MissingColumn => "missing_column",
    NullKey => "null_key",
    TooLarge => "too_large",
    // names
    UnknownDType => "unknown_dtype",
    UnknownEntity => "unknown_entity",
    UnknownFeature => "unknown_feature",
    UnknownFeatureView => "unknown_feature_view",
    UnknownFeatureService => "unknown_feature_service",
    UnknownModel => "unknown_model",
    UnknownModelVersion => "unknown_model_version",
    UnknownDeployment => "unknown_deployment",
    NotFound => "not_found",
    MethodNotAllowed => "method_not_allowed",
    Unsupported => "unsupported",
    // definitions
    InvalidDefinition => "invalid_definition",
    InvalidExpression => "invalid_expression",
    NameClash => "name_clash",
    BreakingChange => "breaking_change",
    FunctionFailed => "function_failed",
    // files and stores
    CorruptModel => "corrupt_model",
    UnsupportedModel => "unsupported_model",
    GoldenRowMismatch => "golden_row_mismatch",
    CorruptStore => "corrupt_store",
    NewerFormat => "newer_format",
    StoreLocked => "store_locked",
    StoreFull => "store_full",
    ReadOnly => "read_only",
    Io => "io",
    // who asks
    Unauthenticated => "unauthenticated",
    PermissionDenied => "permission_denied",
    RateLimited => "rate_limited",
    // the process
    PortBusy => "port_busy",
    UsedAfterFork => "used_after_fork",
    Unavailable => "unavailable",
    ModelFailed => "model_failed",
    DeadlineExceeded => "deadline_exceeded",
    Cancelled => "cancelled",
    Internal => "internal",
}

/// What went wrong (naming the thing), and what to do next.
#[derive(Debug, Clone)]
pub struct Error {
    pub code: ErrorCode,
    pub message: String,
    pub hint: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    /// For a state that our own code must never reach; the hint asks for a report.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message, "this is a defect of headrace: please report it with the message")
    }

    /// Puts the place in front of the message: `view 'weather': ...`.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorCode::Io, error.to_string(), "")
    }
}
