"""The sample rate that every sound is brought to before an encoder hears it."""

SAMPLE_RATE = 16_000  # samples a second, of one channel, as all encoders here were pre-trained with
