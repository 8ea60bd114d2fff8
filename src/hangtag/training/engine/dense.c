// Adam steps on a stack of dense layers, a chunk of batches per call, for dense.py.
//
// All numbers are float32. Rows of examples and weights are padded with zeros to a multiple of LANES; an additional
// input that is always 1 carries the bias. The first layer's weights are stored in blocks of GROUP units, input by
// input within a block, so that each thread's part is contiguous; the other layers' weights are stored unit by unit.
//
// The threads divide the units of each hidden layer: the thread that computes a unit also updates the weights into and
// out of it. One thread computes each sum, in a fixed order, so the weights do not depend on the number of threads.

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 4 };
#elif defined(__AVX__)
enum { LANES = 8, VECTORS = 2 };
#else
enum { LANES = 4, VECTORS = 4 };
#endif
enum { ROWS = 4, GROUP = LANES * VECTORS, MOST_THREADS = 64 }; // ROWS x VECTORS sums fit in the registers

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct { // one dense layer; matches _Layer in dense.py
    int32_t inputs, units;        // without the input for the bias
    int64_t in_row, out_row;      // floats from one example to the next
    float *weights, *means, *squares;
    float *in;     // first layer: (threads, size, inputs + 1); else (size, inputs + 1), the `out` of the layer below
    float *out;    // (size, units + 1)
    float *slopes; // (size, units + 1): gradients of the loss with respect to the pre-activations
} layer;

typedef struct { // one call; matches _Work in dense.py
    int32_t layers, threads, batches, size;
    int64_t steps_done; // before this call
    const layer *layer;
    const uint8_t *images; // (batches, size, inputs)
    const int64_t *labels; // (batches, size)
    const float *weights;  // (batches, size), of the examples in the loss; null: 1 each
    const float *rates;    // (batches)
    float *logits;         // (batches, size, classes)
    float beta1, beta2, epsilon;
} work;

typedef struct {
    const work *work;
    int number, met;
    atomic_int *started, *arrived;
    pthread_t thread;
} worker;

typedef struct { float rate, beta1, beta2, correction, epsilon; } adam;

int32_t lanes(void) { return LANES; }
int32_t group(void) { return GROUP; }

static int at_most(int a, int b) { return a < b ? a : b; }
static int padded(int count) { return (count + LANES - 1) / LANES * LANES; }

// Barrier for all threads. It spins briefly, then yields the processor.
static void meet(worker *me) {
    int all = me->work->threads * ++me->met;
    atomic_fetch_add_explicit(me->arrived, 1, memory_order_acq_rel);
    for (int spins = 0; atomic_load_explicit(me->arrived, memory_order_acquire) < all; spins++)
        if (spins > 2000) sched_yield();
}

// The first unit of a thread's part; the bias counts as a unit.
static int part(const worker *me, int number, int units) {
    int64_t groups = (units + 1 + GROUP - 1) / GROUP;
    return at_most((int)(groups * number / me->work->threads) * GROUP, units + 1);
}

// sums[r][c] = sum over k of left[r * left_row + k * left_step] * right[k * right_row + c], accumulated in registers.
__attribute__((always_inline)) static inline void
tile(const int rows, const int vectors, int count, const float *left, int64_t left_row, int64_t left_step,
     const float *right, int64_t right_row, float *sums, int64_t sums_row) {
    vector sum[ROWS][VECTORS], row[VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[r][v] = (vector){0};
    for (int k = 0; k < count; k++) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) row[v] = *(const vector *)(right + k * right_row + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[r][v] += left[r * left_row + k * left_step] * row[v];
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) *(vector *)(sums + r * sums_row + v * LANES) = sum[r][v];
}

static void product(int rows, int vectors, int count, const float *left, int64_t left_row, int64_t left_step,
                    const float *right, int64_t right_row, float *sums, int64_t sums_row) {
    if (rows == ROWS && vectors == VECTORS)
        tile(ROWS, VECTORS, count, left, left_row, left_step, right, right_row, sums, sums_row);
    else
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                tile(1, 1, count, left + r * left_row, 0, left_step, right + v * LANES, right_row,
                     sums + r * sums_row + v * LANES, 0);
}

static float dot(int64_t count, const float *a, const float *b) { // count is a multiple of LANES
    vector sum = {0};
    for (int64_t i = 0; i < count; i += LANES) sum += *(const vector *)(a + i) * *(const vector *)(b + i);
    float total = 0;
    for (int i = 0; i < LANES; i++) total += sum[i];
    return total;
}

// One Adam step (Kingma & Ba, 2015, algorithm 1; epsilon is added after bias correction) on `count` weights.
static inline void adam_step(const adam *a, int count, const float *restrict gradient, float *restrict weights,
                             float *restrict means, float *restrict squares) {
    for (int i = 0; i < count; i++) {
        float mean = means[i] = means[i] + (gradient[i] - means[i]) * (1 - a->beta1);
        float square = squares[i] = squares[i] * a->beta2 + gradient[i] * gradient[i] * (1 - a->beta2);
        weights[i] -= a->rate * mean / (sqrtf(square) * a->correction + a->epsilon);
    }
}

static void first_forward(const layer *l, int size, int begin, int end) {
    for (int unit = begin; unit < end; unit += GROUP) {
        int width = at_most(GROUP, padded(l->units) - unit);
        const float *block = l->weights + (int64_t)unit * (l->inputs + 1);
        for (int example = 0; example < size; example += ROWS)
            product(at_most(ROWS, size - example), width / LANES, l->inputs + 1, l->in + example * l->in_row, l->in_row,
                    1, block, width, l->out + example * l->out_row + unit, l->out_row);
    }
}

static void first_update(const layer *l, int size, int begin, int end, const adam *a) {
    float gradient[ROWS][GROUP];
    for (int unit = begin; unit < end; unit += GROUP) {
        int width = at_most(GROUP, padded(l->units) - unit);
        for (int input = 0; input <= l->inputs; input += ROWS) {
            int rows = at_most(ROWS, l->inputs + 1 - input);
            product(rows, width / LANES, size, l->in + input, 1, l->in_row, l->slopes + unit, l->out_row, gradient[0],
                    GROUP);
            for (int r = 0; r < rows; r++) {
                int64_t at = (int64_t)unit * (l->inputs + 1) + (int64_t)(input + r) * width;
                adam_step(a, width, gradient[r], l->weights + at, l->means + at, l->squares + at);
            }
        }
    }
}

static void later_forward(const layer *l, int first, int last) {
    for (int example = first; example < last; example++)
        for (int unit = 0; unit < l->units; unit++)
            l->out[example * l->out_row + unit] = dot(l->in_row, l->in + example * l->in_row, l->weights + unit * l->in_row);
}

static void later_update(const layer *l, int size, int begin, int end, const adam *a) {
    float gradient[ROWS][GROUP];
    for (int input = begin; input < end; input += GROUP) {
        int width = at_most(GROUP, padded(end) - input);
        for (int unit = 0; unit < l->units; unit += ROWS) {
            int rows = at_most(ROWS, l->units - unit);
            product(rows, width / LANES, size, l->slopes + unit, 1, l->out_row, l->in + input, l->in_row, gradient[0],
                    GROUP);
            for (int r = 0; r < rows; r++) {
                int64_t at = (unit + r) * l->in_row + input;
                adam_step(a, width, gradient[r], l->weights + at, l->means + at, l->squares + at);
            }
        }
    }
}

// Apply ReLU to units begin..end of examples first..last, and set the input for the next layer's bias to 1.
static void relu(const layer *l, int first, int last, int begin, int end) {
    for (int example = first; example < last; example++) {
        float *values = l->out + example * l->out_row;
        for (int unit = begin; unit < end; unit++) values[unit] = values[unit] > 0 ? values[unit] : 0;
        if (begin <= l->units && l->units < end) values[l->units] = 1;
    }
}

// The gradients of units begin..end of the layer below, through this layer's weights and that layer's ReLU.
static void below(const layer *l, float *slopes, int size, int begin, int end) {
    for (int example = 0; example < size; example++) {
        const float *own = l->slopes + example * l->out_row, *values = l->in + example * l->in_row;
        float *result = slopes + example * l->in_row;
        for (int input = begin; input < end; input += LANES) {
            vector total = {0};
            for (int unit = 0; unit < l->units; unit++)
                total += own[unit] * *(const vector *)(l->weights + unit * l->in_row + input);
            for (int lane = 0; lane < LANES; lane++)
                result[input + lane] = input + lane < l->inputs && values[input + lane] > 0 ? total[lane] : 0;
        }
    }
}

// The gradient of the mean cross-entropy with respect to the logits: (softmax - one-hot) * weight / size.
static void loss_slopes(const layer *l, int size, const int64_t *labels, const float *weights, int first, int last) {
    for (int example = first; example < last; example++) {
        const float *logits = l->out + example * l->out_row;
        float *slopes = l->slopes + example * l->out_row, most = logits[0], total = 0;
        for (int unit = 1; unit < l->units; unit++) most = logits[unit] > most ? logits[unit] : most;
        for (int unit = 0; unit < l->units; unit++) total += slopes[unit] = expf(logits[unit] - most);
        for (int unit = 0; unit < l->units; unit++)
            slopes[unit] = slopes[unit] / total / size - (unit == labels[example] ? 1.0f / size : 0);
        if (weights)
            for (int unit = 0; unit < l->units; unit++) slopes[unit] *= weights[example];
    }
}

static void one_batch(worker *me, int batch) {
    const work *w = me->work;
    const layer *last = w->layer + w->layers - 1;
    layer first = *w->layer;
    int begin = part(me, me->number, first.units), end = part(me, me->number + 1, first.units);
    int from = w->size * me->number / w->threads, to = w->size * (me->number + 1) / w->threads;

    // Every thread converts all inputs itself, which is faster than reading them from another core's cache.
    first.in += me->number * w->size * first.in_row;
    const uint8_t *images = w->images + (int64_t)batch * w->size * first.inputs;
    for (int example = 0; example < w->size; example++)
        for (int input = 0; input < first.inputs; input++)
            first.in[example * first.in_row + input] = images[(int64_t)example * first.inputs + input] / 255.0f;
    first_forward(&first, w->size, begin, at_most(end, first.units));
    if (w->layers > 1) relu(&first, 0, w->size, begin, end);
    meet(me);

    for (const layer *l = w->layer + 1; l <= last; l++) {
        later_forward(l, from, to);
        if (l < last) relu(l, from, to, 0, l->units);
    }
    loss_slopes(last, w->size, w->labels + (int64_t)batch * w->size,
                w->weights ? w->weights + (int64_t)batch * w->size : 0, from, to);
    for (int example = from; example < to; example++)
        memcpy(w->logits + ((int64_t)batch * w->size + example) * last->units, last->out + example * last->out_row,
               sizeof(float) * last->units);
    meet(me);

    double step = (double)(w->steps_done + batch + 1);
    adam a = {(float)(w->rates[batch] / (1 - pow(w->beta1, step))), w->beta1, w->beta2,
              (float)(1 / sqrt(1 - pow(w->beta2, step))), w->epsilon};
    for (const layer *l = last; l > w->layer; l--) {
        int left = part(me, me->number, l->inputs), right = part(me, me->number + 1, l->inputs);
        below(l, l[-1].slopes, w->size, left, right);
        later_update(l, w->size, left, right, &a);
        if (l - 1 > w->layer) meet(me);
    }
    first_update(&first, w->size, begin, at_most(end, first.units), &a);
}

static void *run(void *argument) {
    worker *me = argument;
    while (!atomic_load_explicit(me->started, memory_order_acquire)) sched_yield();
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); // flush denormal numbers (below 1e-38) to zero, because processors handle them slowly
#endif
    for (int batch = 0; batch < me->work->batches; batch++) one_batch(me, batch);
#if defined(__SSE__)
    _mm_setcsr(before);
#endif
    return 0;
}

// Take one step per batch, with as many of the requested threads as the system can start.
void train_batches(const work *given) {
    work own = *given;
    atomic_int started = 0, arrived = 0;
    worker workers[MOST_THREADS];
    int wanted = at_most(own.threads, MOST_THREADS);
    workers[0] = (worker){&own, 0, 0, &started, &arrived, 0};
    for (own.threads = 1; own.threads < wanted; own.threads++) {
        worker *next = &workers[own.threads];
        *next = (worker){&own, own.threads, 0, &started, &arrived, 0};
        if (pthread_create(&next->thread, 0, run, next)) break;
    }
    atomic_store_explicit(&started, 1, memory_order_release);
    run(&workers[0]);
    for (int number = 1; number < own.threads; number++) pthread_join(workers[number].thread, 0);
}
