use std::fmt;

/// A stable slug for each way in which a request, a definition or a file can be wrong.
///
/// Programs match on the slug; people read the message and the hint. A slug never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    // the caller's input
    InvalidArgument,
    InvalidJson,
    InvalidTensor,
    TypeMismatch,
    LengthMismatch,
    MissingColumn,
    NullKey,
    TooLarge,
    // names
    UnknownDType,
    UnknownEntity,
    UnknownFeature,
    UnknownFeatureView,
    UnknownFeatureService,
    UnknownModel,
    UnknownModelVersion,
    UnknownDeployment,
    NotFound,
    MethodNotAllowed,
    // definitions
    InvalidDefinition,
    InvalidExpression,
    NameClash,
    BreakingChange,
    FunctionFailed,
    // files and stores
    CorruptModel,
    UnsupportedModel,
    GoldenRowMismatch,
    CorruptStore,
    NewerFormat,
    StoreLocked,
    StoreFull,
    ReadOnly,
    Io,
    // the process
    PortBusy,
    UsedAfterFork,
    Unavailable,
    Cancelled,
    Internal,
}

impl ErrorCode {
    pub fn slug(self) -> &'static str {
        match self {
            ErrorCode::InvalidArgument => "invalid_argument",
            ErrorCode::InvalidJson => "invalid_json",
            ErrorCode::InvalidTensor => "invalid_tensor",
            ErrorCode::TypeMismatch => "type_mismatch",
            ErrorCode::LengthMismatch => "length_mismatch",
            ErrorCode::MissingColumn => "missing_column",
            ErrorCode::NullKey => "null_key",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::UnknownDType => "unknown_dtype",
            ErrorCode::UnknownEntity => "unknown_entity",
            ErrorCode::UnknownFeature => "unknown_feature",
            ErrorCode::UnknownFeatureView => "unknown_feature_view",
            ErrorCode::UnknownFeatureService => "unknown_feature_service",
            ErrorCode::UnknownModel => "unknown_model",
            ErrorCode::UnknownModelVersion => "unknown_model_version",
            ErrorCode::UnknownDeployment => "unknown_deployment",
            ErrorCode::NotFound => "not_found",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::InvalidDefinition => "invalid_definition",
            ErrorCode::InvalidExpression => "invalid_expression",
            ErrorCode::NameClash => "name_clash",
            ErrorCode::BreakingChange => "breaking_change",
            ErrorCode::FunctionFailed => "function_failed",
            ErrorCode::CorruptModel => "corrupt_model",
            ErrorCode::UnsupportedModel => "unsupported_model",
            ErrorCode::GoldenRowMismatch => "golden_row_mismatch",
            ErrorCode::CorruptStore => "corrupt_store",
            ErrorCode::NewerFormat => "newer_format",
            ErrorCode::StoreLocked => "store_locked",
            ErrorCode::StoreFull => "store_full",
            ErrorCode::ReadOnly => "read_only",
            ErrorCode::Io => "io",
            ErrorCode::PortBusy => "port_busy",
            ErrorCode::UsedAfterFork => "used_after_fork",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Cancelled => "cancelled",
            ErrorCode::Internal => "internal",
        }
    }
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
