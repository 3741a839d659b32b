/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A queue of byte strings whose items live in an arena, through xmem.h.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "xmem.h"

static const xmem_api *xmem;

typedef struct item {
    struct item *next;
    Py_ssize_t n_bytes;
    char bytes[];
} item;

typedef struct {
    PyObject_HEAD
    xmem_pool *pool;
    item *first, *last;
    Py_ssize_t n_items;
} Queue;

static int
queue_init(Queue *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pool", NULL};
    PyObject *pool;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &pool))
        return -1;
    if (self->pool != NULL) {
        PyErr_SetString(PyExc_ValueError, "a queue is initialised once");
        return -1;
    }
    self->pool = xmem->borrow(pool);
    return self->pool == NULL ? -1 : 0;
}

/* Keep other threads out of the arena until leave(); -1 with an exception set. */
static int
queue_enter(Queue *self)
{
    if (self->pool == NULL) {
        PyErr_SetString(PyExc_ValueError, "the queue was never initialised");
        return -1;
    }
    return xmem->enter(self->pool);
}

static item *
queue_take(Queue *self)
{
    item *taken = self->first;
    if (taken != NULL) {
        self->first = taken->next;
        if (self->first == NULL)
            self->last = NULL;
        self->n_items--;
    }
    return taken;
}

static void
queue_dealloc(Queue *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->pool != NULL) {
        item *taken;
        PyObject *kind, *value, *traceback;
        PyErr_Fetch(&kind, &value, &traceback);     /* one may be pending */
        if (xmem->enter(self->pool) == 0) {
            while ((taken = queue_take(self)) != NULL)
                xmem->release(self->pool, taken);
            xmem->leave(self->pool);
        }
        else
            PyErr_WriteUnraisable((PyObject *)type);
        xmem->give_back(self->pool);
        PyErr_Restore(kind, value, traceback);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
queue_push(Queue *self, PyObject *argument)
{
    Py_buffer data;
    item *made;
    if (PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    if (queue_enter(self) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    made = xmem->alloc(self->pool, sizeof(item) + (size_t)data.len, 16);
    if (made != NULL) {
        made->next = NULL;
        made->n_bytes = data.len;
        memcpy(made->bytes, data.buf, (size_t)data.len);
        if (self->last == NULL)
            self->first = made;
        else
            self->last->next = made;
        self->last = made;
        self->n_items++;
    }
    Py_END_ALLOW_THREADS
    xmem->leave(self->pool);
    PyBuffer_Release(&data);
    if (made == NULL)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *
queue_pop(Queue *self, PyObject *unused)
{
    item *taken;
    PyObject *answer;
    (void)unused;
    if (queue_enter(self) < 0)
        return NULL;
    taken = queue_take(self);
    xmem->leave(self->pool);
    if (taken == NULL) {
        PyErr_SetString(PyExc_IndexError, "the queue is empty");
        return NULL;
    }
    answer = PyBytes_FromStringAndSize(taken->bytes, taken->n_bytes);
    if (queue_enter(self) < 0) {
        Py_XDECREF(answer);
        return NULL;
    }
    xmem->release(self->pool, taken);
    xmem->leave(self->pool);
    return answer;
}

static Py_ssize_t
queue_length(Queue *self)
{
    return self->n_items;
}

static PyMethodDef queue_methods[] = {
    {"push", (PyCFunction)queue_push, METH_O, "Append a copy of some bytes."},
    {"pop", (PyCFunction)queue_pop, METH_NOARGS, "Remove the first bytes and return them."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "A queue of byte strings in an xmem.Pool."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, queue_init},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_methods, queue_methods},
    {Py_sq_length, queue_length},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    "arena_queue.Queue", sizeof(Queue), 0, Py_TPFLAGS_DEFAULT, queue_slots,
};

/* The checked calls, by offset, on any pool. */
static PyObject *
copy_of(PyObject *module, PyObject *args)
{
    PyObject *pool;
    Py_buffer data;
    uint64_t offset;
    xmem_pool *borrowed;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oy*", &pool, &data))
        return NULL;
    offset = xmem->xmalloc(pool, (uint64_t)data.len, 16);
    if (offset != 0) {
        borrowed = xmem->borrow(pool);
        if (borrowed == NULL) {
            PyBuffer_Release(&data);
            return NULL;
        }
        memcpy(xmem->at(borrowed, offset), data.buf, (size_t)data.len);
        xmem->give_back(borrowed);
    }
    PyBuffer_Release(&data);
    return offset == 0 ? NULL : PyLong_FromUnsignedLongLong(offset);
}

static PyObject *
resized(PyObject *module, PyObject *args)
{
    PyObject *pool;
    unsigned long long offset, n_bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "OKK", &pool, &offset, &n_bytes))
        return NULL;
    offset = xmem->xrealloc(pool, offset, n_bytes, 16);
    return offset == 0 ? NULL : PyLong_FromUnsignedLongLong(offset);
}

static PyObject *
freed(PyObject *module, PyObject *args)
{
    PyObject *pool;
    unsigned long long offset;
    (void)module;
    if (!PyArg_ParseTuple(args, "OK", &pool, &offset))
        return NULL;
    if (xmem->xfree(pool, offset) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"copy_of", copy_of, METH_VARARGS, "Offset of a copy of some bytes."},
    {"resized", resized, METH_VARARGS, "Offset of a block that was resized."},
    {"freed", freed, METH_VARARGS, "Give a block back."},
    {NULL, NULL, 0, NULL},
};

static int
executed(PyObject *module)
{
    PyObject *type;
    xmem = xmem_import();
    if (xmem == NULL)
        return -1;
    type = PyType_FromSpec(&queue_spec);
    if (type == NULL)
        return -1;
    if (PyModule_AddObjectRef(module, "Queue", type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    Py_DECREF(type);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, executed},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "arena_queue", "A queue in an xmem arena.", 0,
    functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit_arena_queue(void)
{
    return PyModuleDef_Init(&definition);
}
