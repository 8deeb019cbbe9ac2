"""Everyday steps in the order in which people do them, in families of one theme."""

from moslora.data.everyday.tables.shapes import Pairs

BEFORE_AFTER = Pairs(
    kind="before-after",
    forward=(
        "What do you do after you {}?",
        "You {}. What do you do next?",
        "What comes after this step: {}?",
    ),
    backward=(
        "What do you do before you {}?",
        "What must you do first in order to {}?",
        "What comes before this step: {}?",
    ),
    families={
        "bed": """put on your pyjamas > fall asleep, hear the alarm clock > get out of bed, have a nightmare > wake
            up screaming, change the nappy > put the baby in the cot""",
        "dressing": """pull on your socks > tie your shoelaces, zip up your coat > go out into the cold, see dark
            clouds > open your umbrella, wait for the wind > fly the kite""",
        "bathroom": """squeeze the toothpaste > brush your teeth, fill the bathtub > get in and scrub yourself,
            rinse out the shampoo > dry your hair, spread foam on your chin > shave off your beard, put on your
            swimsuit > dive into the pool, climb out of the pool > dry off with a towel""",
        "beauty": "put on lipstick > blot your lips, shake the bottle of nail varnish > paint your nails",
        "housework": """load the washing machine > hang the clothes on the line, heat the iron > smooth out the
            creases, spill coffee on your shirt > scrub out the stain, stack the dirty plates > wash the dishes,
            drop crumbs on the carpet > vacuum the floor""",
        "door": """lick the envelope > mail the letter, sign for the parcel > untie the string, write a note > sign
            your name, knock at the door > wait for someone to answer, put the key in the lock > walk into the
            house, hear the doorbell > see who is at the door, press the lift button > ride to the top floor, dial
            the number > talk to your friend, flick the switch > see the lamp come on""",
        "hot drinks": "boil the kettle > pour the tea, grind the beans > make coffee",
        "farm": """grow the wheat > harvest the grain, bring in the cows > milk them, milk the goat > make cheese,
            open the beehive > collect the honey, feed the hens > collect their eggs, mix the batter > bake the
            cake, knead the dough > bake a loaf, toast a slice of bread > spread butter on it""",
        "presents": """light the candles > blow them out and make a wish, wrap the present > give it to your aunt,
            decorate the Christmas tree > unwrap the presents, scoop out a pumpkin > put a lantern in it, count down
            to midnight > wish everyone a happy new year, blow up a balloon > tie a knot in it""",
        "vegetables": """chop the onions > stir the soup, boil the spaghetti > drain off the water, peel the
            potatoes > mash them, boil the strawberries > fill the jam jars""",
        "snack": """peel a banana > chew and swallow it, crack the shell > eat the nut, crack an egg > whisk the
            yolk, slice the cheese > put it between two pieces of bread, fill the ice tray > leave it in the freezer""",
        "garden": """plant the seeds > pick the vegetables, rake the leaves > put them on the compost heap, mow the
            lawn > sweep up the clippings""",
        "sewing": """shear the sheep > spin the wool, buy some yarn > knit a scarf, thread the needle > sew on the
            button""",
        "cinema": """buy a film ticket > watch the movie, learn your lines > act in the play, watch the show > clap
            your hands, make popcorn > watch television""",
        "restaurant": """read the menu > order your meal, ask for the bill > leave a tip, pull out the cork > pour
            the wine""",
        "travel": """wait at the bus stop > climb aboard, check in your luggage > board the plane, fasten your seat
            belt for landing > step off the aircraft, wave at a taxi > tell the driver the address, pack your
            suitcase > leave on holiday, show your passport > cross the border, lift the anchor > sail away, book a
            hotel room > pick up the key at reception, start the engine > drive away, run out of petrol > fill up
            the tank, get a puncture > change the tyre, get engaged > get married, say your wedding vows > go on
            honeymoon, jump from the aeroplane > open the parachute, count down from ten > launch the rocket""",
        "money": """fill your shopping trolley > pay at the checkout, carry home the groceries > put them in the
            fridge, try on a sweater > buy it, break open the piggy bank > count the coins, find the treasure map >
            dig up the chest""",
        "fire": """strike a match > start a bonfire, gather sticks > make a campfire, pitch the tent > crawl into
            your sleeping bag, chop down a tree > saw the log into planks""",
        "fishing": "bait the hook > reel in the fish",
        "school": """study hard > pass the exam, do your homework > hand it to the teacher, raise your hand > answer
            the question""",
        "reading": """open the novel > read the first chapter, borrow a library book > return it on time, unfold the
            newspaper > read the headlines""",
        "art": "dip the paintbrush > paint a picture, sharpen the pencil > draw a sketch",
        "photo": "aim the camera > take a photograph",
        "illness": """cut your finger > stick on a plaster, feel ill > visit the doctor, sneeze > blow your nose,
            collect the prescription > swallow the pills, break your leg > wear a plaster cast, lose a tooth > leave
            it for the tooth fairy""",
        "sport": """line up at the start > run to the finishing line, win the race > receive a medal, kick the ball
            into the net > celebrate the goal, put on your cycling helmet > pedal along the road, ride up in the ski
            lift > ski down the slope, lace up your skates > glide across the ice""",
        "job": """send in an application > have an interview, work for a month > receive your wages, retire > draw a
            pension""",
        "snow": "roll big snowballs > build a snowman",
        "beach": """rub on sunscreen > sunbathe on the beach, fill a bucket with sand > turn it over to make a
            sandcastle""",
        "music": "tune the guitar > play a song, open the piano lid > play a tune",
        "computer": "type your password > log in to the computer, click on print > collect the pages from the printer",
        "building": """hold the nail > hit it with a hammer, drill a hole > put in the screw, mix the cement > lay
            the bricks, draw the plans > build a cottage""",
        "pets": """put the saddle on the horse > ride it, fetch the lead > walk the dog, open a tin of cat food >
            feed the cat, throw bread into the pond > watch the ducks swim up""",
        "law": """chase the thief > arrest him, hear the witnesses > reach a verdict, mark your ballot paper > drop
            it in the box""",
        "games": "shuffle the cards > deal them to the players, roll the dice > move your counter",
    },
)
