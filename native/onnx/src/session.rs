//! A loaded model: what goes in, what comes out, and running it over tensors that lie in the caller's memory.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::process;
use std::ptr;
use std::sync::Arc;

use headrace_types::{Datatype, Error, ErrorCode, Result};

use crate::api::{OrtSession, OrtSessionOptions, OrtTensorInfo, OrtTypeInfo, OrtValue};
use crate::library::{Library, call, free, used_after_fork};
use crate::status::check;

/// Inputs or outputs that a model may have.
const VALUES_MAX: usize = 10_000;
/// Dimensions of a tensor.
const DIMENSIONS_MAX: usize = 64;

/// The type of a tensor's elements, as far as models of tables need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    Float32,
    Float64,
    Int32,
    Int64,
    Bool,
    String,
    /// Another one, by its number in `TensorProto.DataType`.
    Other(i32),
}

impl ElementType {
    /// The protocol's type with these elements; none where there is none.
    pub fn datatype(self) -> Option<Datatype> {
        Some(match self {
            ElementType::Float32 => Datatype::Fp32,
            ElementType::Float64 => Datatype::Fp64,
            ElementType::Int32 => Datatype::Int32,
            ElementType::Int64 => Datatype::Int64,
            ElementType::Bool => Datatype::Bool,
            ElementType::String => Datatype::Bytes,
            ElementType::Other(2) => Datatype::UInt8,
            ElementType::Other(3) => Datatype::Int8,
            ElementType::Other(4) => Datatype::UInt16,
            ElementType::Other(5) => Datatype::Int16,
            ElementType::Other(10) => Datatype::Fp16,
            ElementType::Other(12) => Datatype::UInt32,
            ElementType::Other(13) => Datatype::UInt64,
            ElementType::Other(16) => Datatype::Bf16,
            ElementType::Other(_) => return None,
        })
    }

    fn of_code(code: c_int) -> Self {
        match code {
            1 => ElementType::Float32,
            6 => ElementType::Int32,
            7 => ElementType::Int64,
            8 => ElementType::String,
            9 => ElementType::Bool,
            11 => ElementType::Float64,
            other => ElementType::Other(other),
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ElementType::Float32 => f.write_str("float32"),
            ElementType::Float64 => f.write_str("float64"),
            ElementType::Int32 => f.write_str("int32"),
            ElementType::Int64 => f.write_str("int64"),
            ElementType::Bool => f.write_str("bool"),
            ElementType::String => f.write_str("string"),
            ElementType::Other(code) => write!(f, "ONNX element type {code}"),
        }
    }
}

/// What an input takes or an output gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    /// Dimensions of -1 are free.
    Tensor {
        element: ElementType,
        shape: Vec<i64>,
    },
    Sequence,
    Map,
    Other,
}

/// An input or output of a model.
#[derive(Debug, Clone)]
pub struct ValueInfo {
    pub name: String,
    pub value_type: ValueType,
    pub(crate) c_name: CString,
}

/// Numbers that go in, in the caller's memory.
#[derive(Debug, Clone, Copy)]
pub enum Tensor<'a> {
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Bool(&'a [bool]),
}

impl Tensor<'_> {
    /// Pointer, bytes, elements and the number of the type.
    fn parts(&self) -> (*const c_void, usize, usize, c_int) {
        match self {
            Tensor::Float32(values) => (values.as_ptr().cast(), size_of_val(*values), values.len(), 1),
            Tensor::Float64(values) => (values.as_ptr().cast(), size_of_val(*values), values.len(), 11),
            Tensor::Int32(values) => (values.as_ptr().cast(), size_of_val(*values), values.len(), 6),
            Tensor::Int64(values) => (values.as_ptr().cast(), size_of_val(*values), values.len(), 7),
            Tensor::Bool(values) => (values.as_ptr().cast(), size_of_val(*values), values.len(), 9),
        }
    }
}

/// How the numbers of a tensor lie: `[rows]`, or row-major `[rows, columns]`.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    sizes: [usize; 2],
    dimensions: usize,
}

impl Shape {
    pub fn vector(rows: usize) -> Self {
        Self { sizes: [rows, 1], dimensions: 1 }
    }

    pub fn matrix(rows: usize, columns: usize) -> Self {
        Self { sizes: [rows, columns], dimensions: 2 }
    }
}

/// Numbers that come out, lent for the time of a call.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
}

/// A model that the library has loaded. Threads may run it at once.
#[derive(Debug)]
pub struct Session {
    pub(crate) library: Arc<Library>,
    pub(crate) session: *mut OrtSession,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// The process that it was made in.
    pub(crate) owner: u32,
}

// SAFETY: a session is documented as usable from several threads at once, `Run` included.
unsafe impl Send for Session {}
// SAFETY: as above; the lists never change.
unsafe impl Sync for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        if self.owner != process::id() {
            return; // A fork's copy: a lock of the library may be held for ever by a thread that only the parent has.
        }
        // SAFETY: made by `new`, and nothing runs it any more.
        unsafe { (self.library.api.release_session)(self.session) };
    }
}

impl Session {
    /// Loads a model from the bytes of its file, for the CPU.
    ///
    /// # Errors
    /// `corrupt_model` with the library's text.
    pub fn new(library: &Arc<Library>, bytes: &[u8]) -> Result<Self> {
        let api = &library.api;
        let mut options = ptr::null_mut();
        // SAFETY: the out pointer is ours.
        call(api, unsafe { (api.create_session_options)(&mut options) })?;
        let options = Options { library, options };
        // SAFETY: the options are alive.
        unsafe {
            if library.is_inherited() {
                // The threads of the common pool are the parent's. One thread is the caller's.
                call(api, (api.set_intra_op_num_threads)(options.options, 1))?;
                call(api, (api.set_inter_op_num_threads)(options.options, 1))?;
            } else {
                call(api, (api.disable_per_session_threads)(options.options))?;
            }
        }
        let mut session = ptr::null_mut();
        // SAFETY: environment and options are alive, the bytes are read during the call only.
        let status = unsafe {
            let bytes_at = bytes.as_ptr().cast();
            (api.create_session_from_array)(library.env, bytes_at, bytes.len(), options.options, &mut session)
        };
        // SAFETY: the status comes from the line above.
        unsafe { check(api, status) }.map_err(|text| {
            Error::new(
                ErrorCode::CorruptModel,
                format!("ONNX Runtime {} does not load it: {text}", library.version()),
                "check it with onnx.checker, export it for an older opset, or install a newer onnxruntime",
            )
        })?;
        let mut session = Session {
            library: Arc::clone(library),
            session,
            inputs: Vec::new(),
            outputs: Vec::new(),
            owner: process::id(),
        };
        session.inputs = session.values(Side::Input)?;
        session.outputs = session.values(Side::Output)?;
        Ok(session)
    }

    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Runs the model over a tensor and its shape for each input, and lends the elements of one output to `take`, with its dimensions.
    ///
    /// # Errors
    /// `model_failed` with the library's text; `used_after_fork` of a session that was made before; `internal` when tensors, shapes and inputs do not fit each other.
    pub fn run<T>(
        &self,
        tensors: &[(Tensor<'_>, Shape)],
        output: usize,
        take: impl FnOnce(Output<'_>, &[i64]) -> Result<T>,
    ) -> Result<T> {
        if self.owner != process::id() {
            return Err(used_after_fork("this ONNX model was loaded before the process forked"));
        }
        let api = &self.library.api;
        let info = self.outputs.get(output).ok_or_else(|| Error::internal("there is no such output"))?;
        if tensors.len() != self.inputs.len() {
            return Err(Error::internal(format!("{} tensors for {} inputs", tensors.len(), self.inputs.len())));
        }
        let values = tensors.iter().map(|(tensor, shape)| self.tensor(tensor, *shape)).collect::<Result<Vec<_>>>()?;
        let pointers: Vec<*const OrtValue> = values.iter().map(|value| value.value.cast_const()).collect();
        let names: Vec<*const c_char> = self.inputs.iter().map(|input| input.c_name.as_ptr()).collect();
        let wanted = info.c_name.as_ptr();
        let mut found = ptr::null_mut();
        // SAFETY: names and values have one entry for each input and outlive the call; one output is asked for, and null lets the library
        // allocate it.
        let status = unsafe {
            let (names, pointers, count) = (names.as_ptr(), pointers.as_ptr(), values.len());
            (api.run)(self.session, ptr::null(), names, pointers, count, &wanted, 1, &mut found)
        };
        // SAFETY: the status comes from the line above.
        unsafe { check(api, status) }.map_err(|text| failed(&text))?;
        let found = Value { library: &self.library, value: found };
        let (elements, shape) = found.elements(&info.name)?;
        take(elements, &shape)
    }

    /// A tensor over the caller's memory.
    fn tensor<'a>(&'a self, tensor: &Tensor<'_>, shape: Shape) -> Result<Value<'a>> {
        let (data, bytes, elements, code) = tensor.parts();
        if shape.sizes[0].checked_mul(shape.sizes[1]) != Some(elements) {
            return Err(Error::internal(format!("a tensor of shape {shape:?} has {elements} elements")));
        }
        let sizes = shape.sizes.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let mut value = ptr::null_mut();
        // SAFETY: the data holds as many elements of this type as the shape says. The library takes a pointer that it may write through,
        // and does not write to inputs.
        let status = unsafe {
            let (data, sizes_at) = (data.cast_mut(), sizes.as_ptr());
            let memory = self.library.memory;
            (self.library.api.create_tensor_with_data)(
                memory,
                data,
                bytes,
                sizes_at,
                shape.dimensions,
                code,
                &mut value,
            )
        };
        call(&self.library.api, status)?;
        Ok(Value { library: &self.library, value })
    }

    fn values(&self, side: Side) -> Result<Vec<ValueInfo>> {
        let api = &self.library.api;
        let mut count = 0;
        // SAFETY: the session is alive, the out pointer ours.
        let status = unsafe {
            match side {
                Side::Input => (api.session_get_input_count)(self.session, &mut count),
                Side::Output => (api.session_get_output_count)(self.session, &mut count),
            }
        };
        call(api, status)?;
        if count > VALUES_MAX {
            return Err(Error::new(
                ErrorCode::UnsupportedModel,
                format!("the model has {count} inputs or outputs, {VALUES_MAX} are the limit"),
                "export it with one matrix as its input",
            ));
        }
        (0..count).map(|index| self.value(side, index)).collect()
    }

    fn value(&self, side: Side, index: usize) -> Result<ValueInfo> {
        let api = &self.library.api;
        let mut name = ptr::null_mut();
        let mut info = ptr::null_mut();
        // SAFETY: the index is below the count, the session and its default allocator are alive, the out pointers are ours.
        unsafe {
            let allocator = self.library.allocator;
            match side {
                Side::Input => {
                    call(api, (api.session_get_input_name)(self.session, index, allocator, &mut name))?;
                    call(api, (api.session_get_input_type_info)(self.session, index, &mut info))?;
                }
                Side::Output => {
                    call(api, (api.session_get_output_name)(self.session, index, allocator, &mut name))?;
                    call(api, (api.session_get_output_type_info)(self.session, index, &mut info))?;
                }
            }
        }
        let info = TypeInfo { library: &self.library, info };
        // SAFETY: the library has made a C string for us.
        let c_name = unsafe { CStr::from_ptr(name) }.to_owned();
        // SAFETY: it came from the default allocator, and is not used after this.
        unsafe { free(&self.library, name.cast()) };
        Ok(ValueInfo { name: c_name.to_string_lossy().into_owned(), value_type: info.value_type()?, c_name })
    }
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Input,
    Output,
}

pub(crate) fn failed(text: &str) -> Error {
    Error::new(
        ErrorCode::ModelFailed,
        format!("ONNX Runtime could not run the model: {text}"),
        "look for values that the model was not made for; `onnxruntime` in Python gives the same error",
    )
}

struct Options<'a> {
    library: &'a Library,
    options: *mut OrtSessionOptions,
}

impl Drop for Options<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `create_session_options`; a session keeps a copy.
        unsafe { (self.library.api.release_session_options)(self.options) };
    }
}

struct TypeInfo<'a> {
    library: &'a Library,
    info: *mut OrtTypeInfo,
}

impl Drop for TypeInfo<'_> {
    fn drop(&mut self) {
        // SAFETY: the library has made it for us.
        unsafe { (self.library.api.release_type_info)(self.info) };
    }
}

impl TypeInfo<'_> {
    fn value_type(&self) -> Result<ValueType> {
        let api = &self.library.api;
        let mut kind = 0;
        // SAFETY: the info is alive, the out pointer ours.
        call(api, unsafe { (api.get_onnx_type_from_type_info)(self.info, &mut kind) })?;
        match kind {
            1 => {
                let mut tensor = ptr::null();
                // SAFETY: as above; the result lives as long as the info.
                call(api, unsafe { (api.cast_type_info_to_tensor_info)(self.info, &mut tensor) })?;
                let (element, shape) = element_and_shape(self.library, tensor)?;
                Ok(ValueType::Tensor { element, shape })
            }
            2 => Ok(ValueType::Sequence),
            3 => Ok(ValueType::Map),
            _ => Ok(ValueType::Other),
        }
    }
}

pub(crate) fn element_and_shape(library: &Library, tensor: *const OrtTensorInfo) -> Result<(ElementType, Vec<i64>)> {
    let api = &library.api;
    let (mut code, mut count) = (0, 0);
    // SAFETY: the info is alive, the out pointers are ours.
    unsafe {
        call(api, (api.get_tensor_element_type)(tensor, &mut code))?;
        call(api, (api.get_dimensions_count)(tensor, &mut count))?;
    }
    if count > DIMENSIONS_MAX {
        return Err(Error::internal(format!("a tensor has {count} dimensions")));
    }
    let mut shape = vec![0; count];
    // SAFETY: the vector has room for `count` dimensions.
    call(api, unsafe { (api.get_dimensions)(tensor, shape.as_mut_ptr(), count) })?;
    Ok((ElementType::of_code(code), shape))
}

/// A value of the library; one over the caller's memory does not own that memory.
struct Value<'a> {
    library: &'a Library,
    value: *mut OrtValue,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the library for us.
        unsafe { (self.library.api.release_value)(self.value) };
    }
}

impl Value<'_> {
    /// The numbers of a tensor that the library has made, and its dimensions.
    fn elements(&self, name: &str) -> Result<(Output<'_>, Vec<i64>)> {
        let api = &self.library.api;
        let mut info = ptr::null_mut();
        // SAFETY: the value is alive, the out pointer ours.
        call(api, unsafe { (api.get_tensor_type_and_shape)(self.value, &mut info) })?;
        let mut count = 0;
        // SAFETY: the info is alive, the out pointer ours.
        let counted = call(api, unsafe { (api.get_tensor_shape_element_count)(info, &mut count) });
        let read = counted.and_then(|()| element_and_shape(self.library, info));
        // SAFETY: the library has made it for us.
        unsafe { (api.release_tensor_info)(info) };
        let (element, shape) = read?;
        let mut data = ptr::null_mut();
        // SAFETY: the value is alive, the out pointer ours.
        call(api, unsafe { (api.get_tensor_mutable_data)(self.value, &mut data) })?;
        // SAFETY: the tensor holds `count` elements of the type that it names, aligned for it, until the value is released; an empty
        // one gets a pointer that may be null, which `slice` does not use.
        let output = unsafe {
            match element {
                ElementType::Float32 => Output::Float32(slice(data, count)),
                ElementType::Float64 => Output::Float64(slice(data, count)),
                ElementType::Int32 => Output::Int32(slice(data, count)),
                ElementType::Int64 => Output::Int64(slice(data, count)),
                other => return Err(failed(&format!("output '{name}' came as {other}"))),
            }
        };
        Ok((output, shape))
    }
}

/// # Safety
/// `data` points to `count` elements that nobody writes to while the slice lives; it may be anything when `count` is 0.
unsafe fn slice<'a, T>(data: *const c_void, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data.cast(), count) }
}
