//! The gRPC codec of the generated stubs: prost, with one difference. A message that does not decode
//! is the caller's mistake (INVALID_ARGUMENT), where tonic's own codec says INTERNAL.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a call's buffers begin with, in bytes. Most messages fit; tonic's 8 KiB for each way of each call cost more
/// cache than the message itself.
const BUFFER_BYTES: usize = 512;
/// Bytes after which an answer's stream hands over what it has, tonic's own default.
const YIELD_BYTES: usize = 32 << 10;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Encodes `T`s and decodes `U`s.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(ProstDecoder::new(buffers()))
    }
}

/// Decodes a message, and blames the sender if it can't.
#[derive(Debug)]
pub struct StrictDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(source).map_err(|status| {
            Status::invalid_argument(format!("the message is malformed: {}", status.message()))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
