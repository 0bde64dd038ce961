//! The part of ONNX Runtime's function table that is used, by its places in the table.

use std::ffi::{c_char, c_int, c_void};

/// The version of the table that is asked for: that of ONNX Runtime 1.17 (early 2024). Every later library has it too.
pub(crate) const API_VERSION: u32 = 17;

macro_rules! opaque {
    ($($name:ident)*) => {$(
        #[repr(C)]
        #[derive(Debug)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! { OrtStatus OrtEnv OrtSession OrtSessionOptions OrtRunOptions OrtValue OrtTypeInfo OrtTensorInfo OrtMemoryInfo OrtAllocator OrtThreadingOptions }

pub(crate) type Status = *mut OrtStatus;

#[repr(C)]
#[derive(Debug)]
pub(crate) struct ApiBase {
    pub(crate) get_api: unsafe extern "C" fn(version: u32) -> *const *const c_void,
    pub(crate) get_version_string: unsafe extern "C" fn() -> *const c_char,
}

macro_rules! api {
    ($($place:literal $name:ident: fn($($argument:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// Functions of the library. It is never closed, so that they stay callable.
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct Api {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// # Safety
            /// `table` is what `GetApi(17)` of an ONNX Runtime library has returned: a table of at least 250 function pointers.
            pub(crate) unsafe fn of_table(table: *const *const c_void) -> Self {
                Self {
                    $($name: {
                        // SAFETY: the place is within the table, whose entries never move between versions.
                        let function = unsafe { table.add($place).read() };
                        // SAFETY: the header declares the function at this place with these arguments, as a C function.
                        unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(function) }
                    },)*
                }
            }
        }
    };
}

api! {
    2 get_error_message: fn(*const OrtStatus) -> *const c_char;
    6 disable_telemetry_events: fn(*const OrtEnv) -> Status;
    8 create_session_from_array: fn(*const OrtEnv, *const c_void, usize, *const OrtSessionOptions, *mut *mut OrtSession) -> Status;
    9 run: fn(
        *mut OrtSession, *const OrtRunOptions, *const *const c_char, *const *const OrtValue, usize,
        *const *const c_char, usize, *mut *mut OrtValue,
    ) -> Status;
    10 create_session_options: fn(*mut *mut OrtSessionOptions) -> Status;
    24 set_intra_op_num_threads: fn(*mut OrtSessionOptions, c_int) -> Status;
    25 set_inter_op_num_threads: fn(*mut OrtSessionOptions, c_int) -> Status;
    30 session_get_input_count: fn(*const OrtSession, *mut usize) -> Status;
    31 session_get_output_count: fn(*const OrtSession, *mut usize) -> Status;
    33 session_get_input_type_info: fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> Status;
    34 session_get_output_type_info: fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> Status;
    36 session_get_input_name: fn(*const OrtSession, usize, *mut OrtAllocator, *mut *mut c_char) -> Status;
    37 session_get_output_name: fn(*const OrtSession, usize, *mut OrtAllocator, *mut *mut c_char) -> Status;
    48 create_tensor: fn(*mut OrtAllocator, *const i64, usize, c_int, *mut *mut OrtValue) -> Status;
    49 create_tensor_with_data: fn(*const OrtMemoryInfo, *mut c_void, usize, *const i64, usize, c_int, *mut *mut OrtValue) -> Status;
    51 get_tensor_mutable_data: fn(*mut OrtValue, *mut *mut c_void) -> Status;
    52 fill_string_tensor: fn(*mut OrtValue, *const *const c_char, usize) -> Status;
    53 get_string_tensor_data_length: fn(*const OrtValue, *mut usize) -> Status;
    54 get_string_tensor_content: fn(*const OrtValue, *mut c_void, usize, *mut usize, usize) -> Status;
    55 cast_type_info_to_tensor_info: fn(*const OrtTypeInfo, *mut *const OrtTensorInfo) -> Status;
    56 get_onnx_type_from_type_info: fn(*const OrtTypeInfo, *mut c_int) -> Status;
    60 get_tensor_element_type: fn(*const OrtTensorInfo, *mut c_int) -> Status;
    61 get_dimensions_count: fn(*const OrtTensorInfo, *mut usize) -> Status;
    62 get_dimensions: fn(*const OrtTensorInfo, *mut i64, usize) -> Status;
    64 get_tensor_shape_element_count: fn(*const OrtTensorInfo, *mut usize) -> Status;
    65 get_tensor_type_and_shape: fn(*const OrtValue, *mut *mut OrtTensorInfo) -> Status;
    69 create_cpu_memory_info: fn(c_int, c_int, *mut *mut OrtMemoryInfo) -> Status;
    76 allocator_free: fn(*mut OrtAllocator, *mut c_void) -> Status;
    78 get_allocator_with_default_options: fn(*mut *mut OrtAllocator) -> Status;
    93 release_status: fn(*mut OrtStatus);
    95 release_session: fn(*mut OrtSession);
    96 release_value: fn(*mut OrtValue);
    98 release_type_info: fn(*mut OrtTypeInfo);
    99 release_tensor_info: fn(*mut OrtTensorInfo);
    100 release_session_options: fn(*mut OrtSessionOptions);
    119 create_env_with_global_thread_pools: fn(c_int, *const c_char, *const OrtThreadingOptions, *mut *mut OrtEnv) -> Status;
    120 disable_per_session_threads: fn(*mut OrtSessionOptions) -> Status;
    121 create_threading_options: fn(*mut *mut OrtThreadingOptions) -> Status;
    122 release_threading_options: fn(*mut OrtThreadingOptions);
    147 set_global_intra_op_num_threads: fn(*mut OrtThreadingOptions, c_int) -> Status;
    148 set_global_inter_op_num_threads: fn(*mut OrtThreadingOptions, c_int) -> Status;
    149 set_global_spin_control: fn(*mut OrtThreadingOptions, c_int) -> Status;
}
