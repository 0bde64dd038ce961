//! Which call is for what.

use crate::access::Action;

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
    /// What it does with the thing that its message names; none for health, which is open to all.
    pub(crate) fn action(self) -> Option<Action> {
        Some(match self {
            Method::ServerLive | Method::ServerReady | Method::Check | Method::Watch => return None,
            Method::ModelInfer | Method::ModelStreamInfer | Method::Predict => Action::Predict,
            Method::GetOnlineFeatures => Action::ReadFeatures,
            Method::RepositoryModelLoad
            | Method::RepositoryModelUnload
            | Method::SystemSharedMemoryRegister
            | Method::SystemSharedMemoryUnregister
            | Method::CudaSharedMemoryRegister
            | Method::CudaSharedMemoryUnregister
            | Method::TraceSetting
            | Method::LogSettings => Action::ManageModels,
            Method::ModelReady
            | Method::ServerMetadata
            | Method::ModelMetadata
            | Method::ModelConfig
            | Method::ModelStatistics
            | Method::RepositoryIndex
            | Method::SystemSharedMemoryStatus
            | Method::CudaSharedMemoryStatus
            | Method::ListDeployments
            | Method::DescribeDeployment
            | Method::ServerReflectionInfo
            | Method::ServerReflectionInfoAlpha => Action::ReadMetadata,
        })
    }

    /// Whether the program around the server does it.
    pub(crate) fn is_errand(self) -> bool {
        matches!(self, Method::RepositoryModelLoad | Method::RepositoryModelUnload)
    }

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
