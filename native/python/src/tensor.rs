//! Dense arrays of numbers, in and out, without a copy: NumPy arrays, and anything else with the buffer protocol.
//!
//! A view is taken as raw parts (address, shape, type) after type, layout, alignment and writability have been checked, because NumPy's own borrow
//! tracking costs more than a lookup of one key. The rules that make this sound: the view never outlives the Python object that it was taken
//! from, the caller keeps that object alive for the call, and two views of one call must not overlap ([`View::overlaps`]). Python code that
//! changes an array in another thread while a call works on it gets torn values, as everywhere in NumPy.

use headrace_types::{Error, ErrorCode};
use numpy::npyffi::{NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE, NPY_TYPES};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;

use crate::error::{Outcome, type_mismatch};

/// The element types that cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Float32,
    Float64,
    Int64,
    UInt8,
}

impl Element {
    fn size(self) -> usize {
        match self {
            Element::Float32 => 4,
            Element::Float64 | Element::Int64 => 8,
            Element::UInt8 => 1,
        }
    }
}

/// A C-contiguous array of at most two dimensions, as raw parts.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) element: Element,
    /// Rows, and values a row; a one-dimensional array of `n` values is `(n, 1)` with `dimensions == 1`.
    pub(crate) shape: (usize, usize),
    pub(crate) dimensions: usize,
    data: *mut u8,
    is_writable: bool,
    /// Keeps the memory of a buffer in place; a NumPy array is kept by its caller.
    _buffer: Option<PyUntypedBuffer>,
}

impl View {
    /// # Errors
    /// `type_mismatch` when it is no array, not C-contiguous, not aligned, has another element type or more than two dimensions.
    pub(crate) fn of(what: &str, object: &Bound<'_, PyAny>) -> Outcome<Self> {
        match object.cast::<PyUntypedArray>() {
            Ok(array) => Self::of_numpy(what, array),
            Err(_) => Self::of_buffer(what, object),
        }
    }

    fn of_numpy(what: &str, array: &Bound<'_, PyUntypedArray>) -> Outcome<Self> {
        // SAFETY: the object is a NumPy array, so its header and its descriptor may be read while the interpreter is attached.
        let (flags, data, type_num, byte_order) = unsafe {
            let fields = &(*array.as_array_ptr()).fields;
            let descriptor = &(*fields.descr).fields;
            (fields.flags, fields.data, descriptor.type_num, descriptor.byteorder)
        };
        let element = element_of(type_num).filter(|_| byte_order as u8 != b'>');
        let Some(element) = element else {
            return Err(wrong_element(what, &array.dtype().to_string()));
        };
        let shape = shape_of(what, array.shape())?;
        if flags & NPY_ARRAY_C_CONTIGUOUS == 0 {
            return Err(not_contiguous(what));
        }
        check_aligned(what, element, data.addr())?;
        Ok(Self {
            element,
            shape,
            dimensions: array.ndim(),
            data: data.cast(),
            is_writable: flags & NPY_ARRAY_WRITEABLE != 0,
            _buffer: None,
        })
    }

    fn of_buffer(what: &str, object: &Bound<'_, PyAny>) -> Outcome<Self> {
        let Ok(buffer) = PyUntypedBuffer::get(object) else {
            return Err(type_mismatch(
                format!("{what} is a {}, not an array", object.get_type().name()?),
                "give a NumPy array, or an object with the buffer protocol",
            ));
        };
        let format = buffer.format().to_str().unwrap_or_default();
        let element = match format.trim_start_matches(['@', '=', '<']) {
            "f" => Element::Float32,
            "d" => Element::Float64,
            "q" => Element::Int64,
            "l" if buffer.item_size() == 8 => Element::Int64,
            "B" => Element::UInt8,
            _ => return Err(wrong_element(what, format)),
        };
        let shape = shape_of(what, buffer.shape())?;
        if !buffer.is_c_contiguous() {
            return Err(not_contiguous(what));
        }
        check_aligned(what, element, buffer.buf_ptr().addr())?;
        Ok(Self {
            element,
            shape,
            dimensions: buffer.dimensions(),
            data: buffer.buf_ptr().cast(),
            is_writable: !buffer.readonly(),
            _buffer: Some(buffer),
        })
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.shape.0 * self.shape.1
    }

    /// # Errors
    /// `length_mismatch` when the shape is not `[rows, columns]`; a single row may come flat.
    pub(crate) fn check_shape(&self, what: &str, rows: usize, columns: usize) -> Outcome<()> {
        let is_flat_row = self.dimensions == 1 && rows == 1 && self.shape.0 == columns;
        if (self.dimensions == 2 && self.shape == (rows, columns)) || is_flat_row {
            return Ok(());
        }
        let found = if self.dimensions == 1 { format!("[{}]", self.shape.0) } else { format!("{:?}", self.shape) };
        Err(Error::new(
            ErrorCode::LengthMismatch,
            format!("{what} has the shape {found}, expected [{rows}, {columns}]"),
            "give one row for each key and one column for each feature",
        )
        .into())
    }

    /// # Errors
    /// `invalid_argument`.
    pub(crate) fn check_writable(&self, what: &str) -> Outcome<()> {
        if self.is_writable {
            return Ok(());
        }
        Err(Error::new(ErrorCode::InvalidArgument, format!("{what} is a read-only array"), "give a writable one")
            .into())
    }

    /// Whether two views share memory.
    pub(crate) fn overlaps(&self, other: &View) -> bool {
        let range = |view: &View| {
            let start = view.data.addr();
            start..start + view.len() * view.element.size()
        };
        let (a, b) = (range(self), range(other));
        a.start < b.end && b.start < a.end
    }

    /// The values.
    ///
    /// # Safety
    /// `T` is the type of `self.element`, the object is alive, and nothing writes to it during the slice's life.
    pub(crate) unsafe fn slice<T>(&self) -> &[T] {
        debug_assert_eq!(size_of::<T>(), self.element.size());
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: the array is C-contiguous with `len` values, and both constructors have checked that its address is aligned: NumPy
        // and the buffer protocol also give views into the middle of a value (`np.frombuffer(data, dtype, offset=1)`).
        unsafe { std::slice::from_raw_parts(self.data.cast_const().cast(), self.len()) }
    }

    /// The values, to be written.
    ///
    /// # Safety
    /// As [`Self::slice`]; besides, the view is writable, and no other slice of its memory lives.
    pub(crate) unsafe fn slice_mut<T>(&mut self) -> &mut [T] {
        debug_assert_eq!(size_of::<T>(), self.element.size());
        if self.len() == 0 {
            return &mut [];
        }
        // SAFETY: as in `slice`; the caller promises that this is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.len()) }
    }
}

fn element_of(type_num: i32) -> Option<Element> {
    const FLOAT: i32 = NPY_TYPES::NPY_FLOAT as i32;
    const DOUBLE: i32 = NPY_TYPES::NPY_DOUBLE as i32;
    const LONG: i32 = NPY_TYPES::NPY_LONG as i32;
    const LONG_LONG: i32 = NPY_TYPES::NPY_LONGLONG as i32;
    const UBYTE: i32 = NPY_TYPES::NPY_UBYTE as i32;
    match type_num {
        FLOAT => Some(Element::Float32),
        DOUBLE => Some(Element::Float64),
        LONG | LONG_LONG => Some(Element::Int64), // a C long has 64 bits on every platform of headrace
        UBYTE => Some(Element::UInt8),
        _ => None,
    }
}

fn shape_of(what: &str, shape: &[usize]) -> Outcome<(usize, usize)> {
    match *shape {
        [rows] => Ok((rows, 1)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(type_mismatch(
            format!("{what} has {} dimensions", shape.len()),
            "give a two-dimensional array, one row after the other",
        )),
    }
}

fn wrong_element(what: &str, found: &str) -> crate::error::Failure {
    type_mismatch(
        format!("{what} holds values of type {found}"),
        "give a float32 or float64 array (uint8 for statuses)",
    )
}

fn check_aligned(what: &str, element: Element, address: usize) -> Outcome<()> {
    if address.is_multiple_of(element.size()) {
        return Ok(());
    }
    Err(type_mismatch(
        format!("{what} is not aligned: its values do not begin at a multiple of {} bytes", element.size()),
        "give a copy: numpy.require(array, requirements=['C', 'A'])",
    ))
}

fn not_contiguous(what: &str) -> crate::error::Failure {
    type_mismatch(format!("{what} is not contiguous in C order"), "pass it through numpy.ascontiguousarray")
}
