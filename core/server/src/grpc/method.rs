//! Which call is for what.

/// Defines the methods with their paths, in the order in which they are counted.
macro_rules! methods {
    ($($method:ident => $service:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Method {
            $($method,)*
        }

        impl Method {
            pub(crate) const ALL: &[Method] = &[$(Method::$method,)*];

            pub(crate) fn of_path(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", method_name!($method)) => Some(Method::$method),)*
                    _ => None,
                }
            }

            /// As calls name it.
            pub(crate) fn path(self) -> &'static str {
                match self {
                    $(Method::$method => concat!("/", $service, "/", method_name!($method)),)*
                }
            }

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Method::$method => method_name!($method),)*
                }
            }
        }
    };
}

/// Reflection is one method under two names.
macro_rules! method_name {
    (ServerReflectionInfo) => {
        "ServerReflectionInfo"
    };
    (ServerReflectionInfoAlpha) => {
        "ServerReflectionInfo"
    };
    ($method:ident) => {
        stringify!($method)
    };
}

methods! {
    ServerLive => "inference.GRPCInferenceService",
    ServerReady => "inference.GRPCInferenceService",
    ModelReady => "inference.GRPCInferenceService",
    ServerMetadata => "inference.GRPCInferenceService",
    ModelMetadata => "inference.GRPCInferenceService",
    ModelInfer => "inference.GRPCInferenceService",
    ModelStreamInfer => "inference.GRPCInferenceService",
    ModelConfig => "inference.GRPCInferenceService",
    ModelStatistics => "inference.GRPCInferenceService",
    RepositoryIndex => "inference.GRPCInferenceService",
    RepositoryModelLoad => "inference.GRPCInferenceService",
    RepositoryModelUnload => "inference.GRPCInferenceService",
    SystemSharedMemoryStatus => "inference.GRPCInferenceService",
    SystemSharedMemoryRegister => "inference.GRPCInferenceService",
    SystemSharedMemoryUnregister => "inference.GRPCInferenceService",
    CudaSharedMemoryStatus => "inference.GRPCInferenceService",
    CudaSharedMemoryRegister => "inference.GRPCInferenceService",
    CudaSharedMemoryUnregister => "inference.GRPCInferenceService",
    TraceSetting => "inference.GRPCInferenceService",
    LogSettings => "inference.GRPCInferenceService",
    Predict => "headrace.v1.Headrace",
    GetOnlineFeatures => "headrace.v1.Headrace",
    ListDeployments => "headrace.v1.Headrace",
    DescribeDeployment => "headrace.v1.Headrace",
    Check => "grpc.health.v1.Health",
    Watch => "grpc.health.v1.Health",
    ServerReflectionInfo => "grpc.reflection.v1.ServerReflection",
    ServerReflectionInfoAlpha => "grpc.reflection.v1alpha.ServerReflection",
}

/// Methods, and one place for everything that is none of them.
pub(crate) const METHODS: usize = Method::ALL.len() + 1;
/// Where calls of no method are counted.
pub(crate) const METHOD_NONE: usize = METHODS - 1;

impl Method {
    pub(crate) fn is_stream(self) -> bool {
        matches!(
            self,
            Method::ModelStreamInfer | Method::Watch | Method::ServerReflectionInfo | Method::ServerReflectionInfoAlpha
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_defined_method_is_served() {
        let paths = headrace_protocol::grpc::method_paths().unwrap();
        assert_eq!(paths.len(), Method::ALL.len());
        for path in paths {
            let method = Method::of_path(&path).unwrap_or_else(|| panic!("{path}"));
            assert!(path.ends_with(method.name()));
            assert_eq!(method.path(), path);
        }
        assert_eq!(Method::of_path("/inference.GRPCInferenceService/Nothing"), None);
    }
}
