"""Where a thing is found."""

from moslora.data.everyday.tables.shapes import Facts

FOUND_IN = Facts(
    kind="found-in",
    questions=("Where would you find {}?", "Where are you most likely to see {}?", "Where would you look for {}?"),
    items={
        "in the sea": """shark, whale, dolphin, octopus, jellyfish, seahorse, lobster, ~seaweed, coral reef, squid,
            submarine, stingray, swordfish""",
        "in the sky": "cloud, rainbow, the sun, kite, hot-air balloon, ~lightning, helicopter, thundercloud",
        "on a farm": """cow, sheep, hen, tractor, barn, plough, haystack, pig, scarecrow, combine harvester, pigsty,
            rooster, milking machine, turkey, donkey""",
        "in a kitchen": """oven, fridge, saucepan, toaster, frying pan, kettle, dishwasher, rolling pin, chopping
            board, whisk, ladle, stove, spatula, corkscrew""",
        "in a bathroom": """bathtub, shower curtain, toothbrush, washbasin, ~shampoo, ~toothpaste, bath mat, toilet
            brush, toilet roll, bar of soap, ~mouthwash""",
        "in a bedroom": "pillow, mattress, duvet, bedspread, bunk bed, bedside table, a pair of pyjamas",
        "in a hospital": """nurse, surgeon, operating theatre, stretcher, patient, X-ray machine, maternity ward,
            ambulance, doctor, stethoscope""",
        "at a school": "classroom, blackboard, pupil, teacher, headmaster, ~homework, schoolgirl, exam",
        "in the desert": "camel, cactus, sand dune, scorpion, oasis, rattlesnake, tumbleweed",
        "in the jungle": "gorilla, monkey, toucan, chimpanzee, orangutan, jaguar, sloth, parrot, anaconda",
        "at an airport": "runway, airliner, pilot, control tower, departure lounge, jumbo jet, suitcase, passport",
        "at a railway station": "train, railway platform, locomotive, train driver, steam engine",
        "in a church": "altar, pew, priest, vicar, choir, pulpit, hymn book, bishop, nun",
        "in an office": "photocopier, printer, filing cabinet, stapler, secretary, paper clip, fax machine",
        "in outer space": "planet, galaxy, asteroid, satellite, astronaut, black hole, spaceship, comet, alien",
        "on a beach": """sandcastle, seashell, deckchair, lifeguard, beach towel, beach umbrella, a bucket and
            spade, surfboard""",
        "at a circus": "clown, acrobat, juggler, lion tamer, trapeze, ringmaster, tightrope walker",
        "in a library": "librarian, bookshelf, encyclopedia, novel, atlas, dictionary",
        "in the Arctic": "polar bear, iceberg, igloo, reindeer, walrus, sledge, husky",
        "in a garden": """flower bed, lawn, lawnmower, hedge, rose bush, vegetable patch, garden gnome, tulip,
            watering can""",
        "in a forest": "oak, pine cone, deer, squirrel, fox, toadstool, badger, woodpecker, hedgehog, fir",
        "in a theatre": "stage, actor, ballerina, actress, audience, spotlight, stage curtain",
        "in a restaurant": "waiter, menu, waitress, wine list, chef, dessert trolley",
        "in a museum": "dinosaur skeleton, Egyptian mummy, fossil, ancient vase, statue, suit of armour",
        "in a prison": "prisoner, jailer, convict, inmate, prison cell",
        "in a pond": "frog, tadpole, newt, water lily, duck, toad",
        "in a gym": "treadmill, dumbbell, exercise bike, barbell, rowing machine, punchbag",
        "on a building site": "bulldozer, cement mixer, bricklayer, builder, digger, hard hat, ~scaffolding",
    },
    clashes={
        "in a theatre": "in a museum",
        "in the sea": "in a pond, on a beach, in the Arctic, in a restaurant, in a kitchen, in a museum",
        "in the sky": "in outer space, at an airport, on a beach, in the desert, in the jungle",
        "on a farm": (
            "in a garden, in a forest, on a beach, on a building site, in a kitchen, in a restaurant, in a pond, "
            "in the Arctic, in the desert, at a circus"
        ),
        "in a kitchen": "in a restaurant, in an office, in a bathroom, in a pond, in a museum",
        "in a bathroom": "in a bedroom, in a hospital, in a gym, on a beach",
        "in a bedroom": "in a hospital, in a prison, at an airport, in a library, in a museum, in a gym",
        "in a hospital": "at a school, in a prison, in a theatre, in an office, in a church, in a museum, in a gym",
        "at a school": "in a library, in an office, in a theatre, in a museum, in a gym, in a church",
        "in the desert": "in the jungle, in a garden, on a beach, in a forest, at a circus, in a museum",
        "in the jungle": "in a forest, in a garden, at a circus, in a pond",
        "at an airport": "at a railway station, in an office, in a library",
        "at a railway station": "in a museum, in an office",
        "in a church": "in a theatre, in a library, in a museum, in a prison",
        "in an office": "in a library",
        "in outer space": "in a museum",
        "on a beach": "in a pond, in a garden, in a museum",
        "at a circus": "in a theatre, in a gym",
        "in a library": "in a museum",
        "in the Arctic": "in a forest",
        "in a garden": "in a forest, in a pond, in a museum",
        "in a forest": "in a pond",
        "in a restaurant": "in a pond",
    },
)
