/* ranks/mpi_openmpi.c - Open MPI's binary interface, versions 1.7 to 5: handles are pointers. */
#define HANDLE void *
#define REQUEST p
#define IGNORE NULL
#include "ranks/mpi_shim.h"

bool mpi_use_openmpi(struct mpi *m)
{
    world = dlsym(m->library, "ompi_mpi_comm_world");
    byte = dlsym(m->library, "ompi_mpi_byte");
    errors_return = dlsym(m->library, "ompi_mpi_errors_return");
    return world && byte && errors_return && use(m);
}
