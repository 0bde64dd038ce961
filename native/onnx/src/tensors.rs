//! Running a model over tensors of any type: numbers are not copied on their way in where they are aligned, nor on their way out.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::process;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use headrace_types::{Datatype, Result, Tensor, invalid_tensor};

use crate::api::OrtValue;
use crate::library::{Library, call, used_after_fork};
use crate::session::{Session, element_and_shape, failed};
use crate::status::check;

/// The number of a type in the library's enumeration.
fn code_of(datatype: Datatype) -> c_int {
    match datatype {
        Datatype::Fp32 => 1,
        Datatype::UInt8 => 2,
        Datatype::Int8 => 3,
        Datatype::UInt16 => 4,
        Datatype::Int16 => 5,
        Datatype::Int32 => 6,
        Datatype::Int64 => 7,
        Datatype::Bytes => 8,
        Datatype::Bool => 9,
        Datatype::Fp16 => 10,
        Datatype::Fp64 => 11,
        Datatype::UInt32 => 12,
        Datatype::UInt64 => 13,
        Datatype::Bf16 => 16,
    }
}

impl Session {
    /// Runs the model over a tensor for each input, in its order, and answers the outputs at these places, named as the model names them.
    ///
    /// # Errors
    /// `model_failed` with the library's text; `used_after_fork` of a session that was made before; `invalid_tensor` for a text with a zero
    /// byte, which the library's strings cannot hold; `internal` when there are more or fewer tensors than inputs.
    pub fn run_tensors(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
        if self.owner != process::id() {
            return Err(used_after_fork("this ONNX model was loaded before the process forked"));
        }
        if inputs.len() != self.inputs().len() || outputs.iter().any(|place| *place >= self.outputs().len()) {
            return Err(headrace_types::Error::internal("the tensors do not fit the session"));
        }
        let api = &self.library.api;
        let lent = inputs.iter().map(|tensor| Lent::new(&self.library, tensor)).collect::<Result<Vec<_>>>()?;
        let pointers: Vec<*const OrtValue> = lent.iter().map(|lent| lent.value.value.cast_const()).collect();
        let names: Vec<*const c_char> = self.inputs().iter().map(|input| input.c_name.as_ptr()).collect();
        let wanted: Vec<*const c_char> = outputs.iter().map(|place| self.outputs()[*place].c_name.as_ptr()).collect();
        let mut found: Vec<*mut OrtValue> = vec![ptr::null_mut(); outputs.len()];
        // SAFETY: names and values have one entry for each input, wanted and found one for each output, and all of them outlive the call;
        // null lets the library allocate an output.
        let status = unsafe {
            let (names, pointers, count) = (names.as_ptr(), pointers.as_ptr(), pointers.len());
            let (wanted, found) = (wanted.as_ptr(), found.as_mut_ptr());
            (api.run)(self.session, ptr::null(), names, pointers, count, wanted, outputs.len(), found)
        };
        let found: Vec<Owned> = found.into_iter().map(|value| Owned::new(&self.library, value)).collect();
        // SAFETY: the status comes from the call above.
        unsafe { check(api, status) }.map_err(|text| failed(&text))?;
        drop(lent);
        let answers = outputs.iter().zip(found);
        answers.map(|(place, value)| value.into_tensor(&self.outputs()[*place].name)).collect()
    }
}

/// A value of the library that is ours to release.
struct Owned {
    library: Arc<Library>,
    value: *mut OrtValue,
    /// The process that it was made in.
    owner: u32,
}

// SAFETY: a value belongs to no thread; only its owner releases it.
unsafe impl Send for Owned {}
// SAFETY: nothing changes a value after it was made.
unsafe impl Sync for Owned {}

impl Owned {
    fn new(library: &Arc<Library>, value: *mut OrtValue) -> Self {
        Self { library: Arc::clone(library), value, owner: process::id() }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // In a fork's copy a lock of the library may be held for ever by a thread that only the parent has.
        if !self.value.is_null() && self.owner == process::id() {
            // SAFETY: the library has made it for us, and nothing points into it any more.
            unsafe { (self.library.api.release_value)(self.value) };
        }
    }
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").finish_non_exhaustive()
    }
}

/// An input: the library's value over the tensor's memory, or over a copy of it that lies as the library needs it.
struct Lent {
    value: Owned,
    _aligned: Vec<u64>,
}

impl Lent {
    fn new(library: &Arc<Library>, tensor: &Tensor) -> Result<Self> {
        let shape: Vec<i64> = tensor.shape().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        let code = code_of(tensor.datatype());
        let Some(width) = tensor.datatype().width_bytes() else {
            return Ok(Self { value: texts(library, tensor, &shape)?, _aligned: Vec::new() });
        };
        let data = tensor.data();
        let mut aligned: Vec<u64> = Vec::new();
        let is_aligned = data.as_ptr().addr().is_multiple_of(width) && !data.is_empty();
        if !is_aligned {
            // At least one word, so that there is an address.
            aligned = vec![0; data.len().div_ceil(8).max(1)];
            for (word, chunk) in aligned.iter_mut().zip(data.chunks(8)) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                *word = u64::from_ne_bytes(bytes);
            }
        }
        let at: *const c_void = if is_aligned { data.as_ptr().cast() } else { aligned.as_ptr().cast() };
        let mut value = ptr::null_mut();
        // SAFETY: the memory holds as many elements of this type as the shape says, aligned for them, and lives as long as the tensor or this
        // value. The library takes a pointer that it may write through, and does not write to inputs.
        let status = unsafe {
            (library.api.create_tensor_with_data)(
                library.memory,
                at.cast_mut(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                code,
                &mut value,
            )
        };
        call(&library.api, status)?;
        Ok(Self { value: Owned::new(library, value), _aligned: aligned })
    }
}

/// A tensor of strings, which the library copies.
fn texts(library: &Arc<Library>, tensor: &Tensor, shape: &[i64]) -> Result<Owned> {
    let strings = tensor.bytes_elements().map(|element| {
        CString::new(element).map_err(|_| invalid_tensor(tensor.name(), "holds a text with a zero byte"))
    });
    let strings = strings.collect::<Result<Vec<_>>>()?;
    let pointers: Vec<*const c_char> = strings.iter().map(|string| string.as_ptr()).collect();
    let mut value = ptr::null_mut();
    // SAFETY: the default allocator and the shape are alive, the out pointer is ours.
    let status = unsafe {
        let (at, count) = (shape.as_ptr(), shape.len());
        (library.api.create_tensor)(library.allocator, at, count, code_of(Datatype::Bytes), &mut value)
    };
    call(&library.api, status)?;
    let value = Owned::new(library, value);
    // SAFETY: there is a C string for each element, and the library copies them during the call.
    let status = unsafe { (library.api.fill_string_tensor)(value.value, pointers.as_ptr(), pointers.len()) };
    call(&library.api, status)?;
    Ok(value)
}

impl Owned {
    /// The tensor that the library has made, its numbers in the library's memory.
    fn into_tensor(self, name: &str) -> Result<Tensor> {
        let api = &self.library.api;
        let mut info = ptr::null_mut();
        // SAFETY: the value is alive, the out pointer ours.
        call(api, unsafe { (api.get_tensor_type_and_shape)(self.value, &mut info) })?;
        let mut count = 0;
        // SAFETY: the info is alive, the out pointer ours.
        let counted = call(api, unsafe { (api.get_tensor_shape_element_count)(info, &mut count) });
        let read = counted.and_then(|()| element_and_shape(&self.library, info));
        // SAFETY: the library has made it for us.
        unsafe { (api.release_tensor_info)(info) };
        let (element, shape) = read?;
        let datatype = element.datatype().ok_or_else(|| failed(&format!("output '{name}' came as {element}")))?;
        let shape = shape.iter().map(|dim| usize::try_from(*dim).ok()).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(|| failed(&format!("output '{name}' came without a size")))?;
        let Some(width) = datatype.width_bytes() else {
            return Tensor::of_bytes(name, shape, self.strings(count)?);
        };
        if count == 0 {
            return Tensor::new(name, datatype, shape, Bytes::new());
        }
        let mut data = ptr::null_mut();
        // SAFETY: the value is alive, the out pointer ours.
        call(api, unsafe { (api.get_tensor_mutable_data)(self.value, &mut data) })?;
        let bytes = count.checked_mul(width).ok_or_else(|| failed(&format!("output '{name}' has no bound")))?;
        let numbers = Numbers { _owned: self, data: data.cast_const().cast(), bytes };
        Tensor::new(name, datatype, shape, Bytes::from_owner(numbers))
    }

    /// The elements of a tensor of strings.
    fn strings(&self, count: usize) -> Result<Vec<Vec<u8>>> {
        let api = &self.library.api;
        let mut bytes = 0;
        // SAFETY: the value is alive and holds strings, the out pointer is ours.
        call(api, unsafe { (api.get_string_tensor_data_length)(self.value, &mut bytes) })?;
        let (mut content, mut offsets) = (vec![0u8; bytes], vec![0usize; count]);
        if count == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: there is room for all bytes and for an offset of each element.
        let status = unsafe {
            let (content, offsets) = (content.as_mut_ptr().cast(), offsets.as_mut_ptr());
            (api.get_string_tensor_content)(self.value, content, bytes, offsets, count)
        };
        call(api, status)?;
        let ends = offsets[1..].iter().copied().chain([bytes]);
        let elements = offsets.iter().zip(ends).map(|(start, end)| content.get(*start..end).map(<[u8]>::to_vec));
        elements.collect::<Option<_>>().ok_or_else(|| failed("its strings overlap"))
    }
}

/// The numbers of an output, in the library's memory, for as long as somebody has them.
struct Numbers {
    _owned: Owned,
    data: *const u8,
    bytes: usize,
}

// SAFETY: the numbers never change, and go with the value that owns them.
unsafe impl Send for Numbers {}
// SAFETY: as above.
unsafe impl Sync for Numbers {}

impl AsRef<[u8]> for Numbers {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the tensor holds this many bytes until its value is released, which is when this is dropped, and nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }
}
